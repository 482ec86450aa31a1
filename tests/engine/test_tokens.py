"""Widening, cutting and locating against plain rules written out again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from qvl.engine.errors import BadRequest, Unprocessable
from qvl.engine.prompt import FRAME, IMAGE
from qvl.engine.tokens import PromptTokenizer, SpecialIds
from tests.tiny import write_checkpoint

LIMIT = 64


@dataclass(frozen=True)
class Shape:
    kind: Literal["image", "video"]
    grid: tuple[int, int, int]

    @property
    def tokens(self) -> int:
        t, h, w = self.grid
        return t * h * w // 4


IMAGE_4 = Shape("image", (1, 4, 4))
VIDEO_2X6 = Shape("video", (2, 4, 6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens")


def build(folder: Path, *, reranker: bool = False, append_end: bool = False) -> PromptTokenizer:
    path = write_checkpoint(folder / f"end-{append_end}", append_end=append_end)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    special = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    ids = SpecialIds(
        image=tokenizer.token_to_id("<|image_pad|>"),
        video=tokenizer.token_to_id("<|video_pad|>"),
        all=frozenset(special),
    )
    return PromptTokenizer(tokenizer, ids, max_length=LIMIT, reranker=reranker)


PIECES = st.lists(
    st.sampled_from(
        ["<|im_end|>", "<|im_start|>", "<|image_pad|>", "\n", " ", "a b", "e\u0301", "ﬁ", "\u0301"]
    )
    | st.text(max_size=8),
    max_size=8,
).map("".join)


@settings(deadline=None, max_examples=200)
@given(texts=st.lists(PIECES, max_size=4), append_end=st.booleans())
def test_ids_are_those_of_the_whole_text(
    both: dict[bool, PromptTokenizer], texts: list[str], append_end: bool
) -> None:
    """Wherever special tokens and combining marks fall."""
    ours = both[append_end]
    assert ours.encode(texts) == [ours._tokenizer.encode(text).ids for text in texts]


class Batches:
    """A tokenizer whose `encode`, which keeps all other threads waiting, is not to be called."""

    def __init__(self, real: Tokenizer) -> None:
        self.encode_batch, self.encode_batch_fast = real.encode_batch, real.encode_batch_fast


def test_a_text_alone_holds_up_no_other_thread(folder: Path) -> None:
    ours = build(folder)
    text = "one \U0001f600 two"  # which the proven tokenizer does not take
    ids = ours._tokenizer.encode(text).ids
    ours._tokenizer = Batches(ours._tokenizer)
    assert ours.encode([text]) == [ids]
    assert [each.id for each in ours.split(text, special=False)] == ids
    assert ours.clip(text, 1) == "one"


@pytest.fixture(scope="module")
def both(folder: Path) -> dict[bool, PromptTokenizer]:
    return {end: build(folder, append_end=end) for end in (False, True)}


def spelled(shape: Shape) -> str:
    return (
        IMAGE if shape.kind == "image" else "".join(f"<{i}.0 seconds>{FRAME}" for i in range(shape.grid[0]))
    )


def wide(shape: Shape) -> str:
    pad = f"<|{shape.kind}_pad|>"
    return spelled(shape).replace(pad, pad * (shape.tokens // shape.grid[0]))


@settings(deadline=None, max_examples=60)
@given(
    shapes=st.lists(st.sampled_from([IMAGE_4, VIDEO_2X6]), max_size=2),
    before=st.text(max_size=8),
    after=st.text(max_size=8),
)
def test_widened_ids_are_those_of_the_spelled_out_text(
    folder: Path, shapes: list[Shape], before: str, after: str
) -> None:
    side = build(folder)
    short = before + "".join(map(spelled, shapes)) + after
    long = before + "".join(map(wide, shapes)) + after
    expected = side.encode([long])[0]
    if len(expected) <= LIMIT:
        prompt = side.prompt(side.encode([short])[0], shapes, where="input")
        assert prompt.ids == expected


def test_spans_cover_the_pads(folder: Path) -> None:
    side = build(folder)
    shapes = [VIDEO_2X6, IMAGE_4]
    prompt = side.prompt(side.encode(["a" + "".join(map(spelled, shapes)) + "b"])[0], shapes, where="input")
    video, image = prompt.spans
    inside = prompt.ids[video.offset : video.offset + video.length]
    assert inside.count(video.pad) == VIDEO_2X6.tokens
    start, end = (side._tokenizer.token_to_id(f"<|vision_{each}|>") for each in ("start", "end"))
    assert (inside[0], inside[-1]) == (start, end)
    assert prompt.ids[image.offset : image.offset + image.length] == [image.pad] * IMAGE_4.tokens


@pytest.mark.parametrize("append_end", [False, True])
def test_embedder_cuts_on_the_right_and_keeps_what_the_tokenizer_appends(
    folder: Path, append_end: bool
) -> None:
    side = build(folder, append_end=append_end)
    full = side.encode(["word " * 200])[0]
    ids = side.prompt(full, (), where="input").ids
    assert len(ids) == LIMIT
    assert ids == (full[: LIMIT - 1] + full[-1:] if append_end else full[:LIMIT])


def test_reranker_keeps_special_ids_and_the_last_five(folder: Path) -> None:
    side = build(folder, reranker=True)
    special = side._special.all
    text = "<|im_start|>" + "word " * 80 + "<|im_end|>" + "tail " * 10 + "<|im_end|>\n<|im_start|>assistant\n"
    full = side.encode([text])[0]
    ids = side.prompt(full, (), where="documents[0]").ids
    assert len(ids) == LIMIT
    assert ids[-5:] == full[-5:]
    assert [i for i in ids if i in special] == [i for i in full if i in special]
    plain = [i for i in full[:-5] if i not in special]
    assert [i for i in ids[:-5] if i not in special] == plain[: LIMIT - 5 - 2]


def test_an_image_is_never_cut(folder: Path) -> None:
    side = build(folder)
    big = Shape("image", (1, 16, 20))
    text = side.encode([spelled(big)])[0]
    with pytest.raises(Unprocessable, match=f"^{len(text) - 1 + 80} tokens, and at most 64 ") as caught:
        side.prompt(text, [big], where="input[3]")
    assert (caught.value.param, caught.value.code) == ("input[3]", "input_too_long")


def test_text_behind_an_image_is_cut_and_the_image_stays(folder: Path) -> None:
    side = build(folder)
    prompt = side.prompt(side.encode([IMAGE + "word " * 99])[0], [IMAGE_4], where="input")
    assert len(prompt.ids) == LIMIT
    assert prompt.ids.count(prompt.spans[0].pad) == 4


def test_a_placeholder_in_text_beside_media_is_refused(folder: Path) -> None:
    side = build(folder)
    with pytest.raises(Unprocessable) as caught:
        side.prompt(side.encode([IMAGE + "<|image_pad|>"])[0], [IMAGE_4], where="input[1]")
    assert caught.value.code == "reserved_token"


def test_truncate_false_refuses_instead(folder: Path) -> None:
    side = build(folder)
    with pytest.raises(Unprocessable, match="at most 10"):
        side.prompt([1] * 11, (), where="input", truncate=False, max_tokens=10)


@pytest.mark.parametrize("ids", [[], [-1], [10**9]])
def test_bad_ids_are_refused(folder: Path, ids: list[int]) -> None:
    with pytest.raises(BadRequest):
        build(folder).check_ids(ids, "input")


def test_a_callers_ids_are_cut_where_it_says(folder: Path) -> None:
    side = build(folder)
    ids = [*side.encode(["<|im_start|>"])[0], *range(10, 29)]
    assert side.check_ids(ids, "input").ids == ids
    assert side.check_ids(ids, "input", max_tokens=4).ids == ids[:4]
    assert len(side.check_ids(ids * 9, "input", max_tokens=100).ids) == LIMIT
    with pytest.raises(Unprocessable, match="20 tokens, and at most 4"):
        side.check_ids(ids, "input", truncate=False, max_tokens=4)


def test_ids_of_another_tokenizer_are_refused(folder: Path) -> None:
    """LangChain sends OpenAI's by default: each of them is some token here."""
    with pytest.raises(BadRequest, match="a whole prompt") as caught:
        build(folder).check_ids([10, 11], "input[1]")
    assert (caught.value.param, caught.value.code) == ("input[1]", "not_a_prompt")


def test_a_limit_that_leaves_nothing_of_the_item_is_refused(folder: Path) -> None:
    """Or all items would have one vector."""
    side = build(folder, append_end=True)
    text = "<|im_start|>system\nRead.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    before = side.encode([text.partition("{}")[0]])[0][:-1]  # less what this tokenizer appends
    ids = side.encode([text.format("a b c")])[0]
    least = len(before) + 1
    with pytest.raises(BadRequest, match=f"of {least} tokens leaves no room .* raise it above {least}"):
        side.prompt(ids, (), where="input", max_tokens=least)
    first = side.prompt(ids, (), where="input", max_tokens=len(before) + 2)
    assert first.ids == [*ids[: len(before) + 1], ids[-1]]


@given(text=PIECES, tokens=st.integers(1, 12))
@settings(max_examples=300, deadline=None)
def test_clip_is_a_prefix_of_so_many_tokens(
    both: dict[bool, PromptTokenizer], text: str, tokens: int
) -> None:
    side = both[False]
    clipped = side.clip(text, tokens)
    assert text.startswith(clipped)
    assert len(side._tokenizer.encode(clipped, add_special_tokens=False).ids) <= tokens
    if len(side._tokenizer.encode(text, add_special_tokens=False).ids) <= tokens:
        assert clipped == text


@pytest.mark.parametrize(
    ("text", "tokens", "clipped"),
    [("e\u0301" * 20, 3, "e\u0301" * 3), ("\U00012000", 1, ""), ("a\U00012000", 2, "a")],
    ids=["an accent of its own", "one character", "a letter before"],
)
def test_clip_ends_with_a_whole_character(folder: Path, text: str, tokens: int, clipped: str) -> None:
    assert build(folder).clip(text, tokens) == clipped
