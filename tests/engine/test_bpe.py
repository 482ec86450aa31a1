"""tiktoken in a tokenizer's place: equal ids for whatever it takes, and no proof where they could differ."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from qvl.engine import bpe
from tests.tiny import write_checkpoint

BUNDLED = Path(bpe.__file__).parent / "demo" / "pair"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_file(str(write_checkpoint(tmp_path_factory.mktemp("bpe")) / "tokenizer.json"))


@pytest.fixture(scope="module")
def fast(tiny: Tokenizer) -> Callable[[str], list[int] | None]:
    found = bpe.proven(tiny)
    assert found is not None
    return found


@pytest.mark.parametrize("role", ["embedder", "reranker"])
def test_the_bundled_pair_is_proven(role: str) -> None:
    assert bpe.proven(Tokenizer.from_file(str(BUNDLED / role / "tokenizer.json")))


SETTLED = re.findall(f"[{bpe._settled()}]", "".join(map(chr, range(1 << 16))))
SCRIPTS = st.text(st.sampled_from(SETTLED), max_size=30)
ASCII = st.text(st.characters(max_codepoint=127), max_size=40)
RUNS = st.builds(
    str.__mul__, st.sampled_from(["a", " ", "\n", "7", "ab", "\r\n", "!", " \t"]), st.integers(1, 400)
)
WORDS = st.sampled_from(
    ["<|im_start|>", "<tool_call>", "<|", "the ", " don't", "I'LL", "\n\nx", "3.14", "\x1c", "\x0b"]
)


@settings(deadline=None, max_examples=400)
@given(text=st.lists(ASCII | SCRIPTS | RUNS | WORDS, max_size=12).map("".join))
@example(text="")
def test_ids_are_those_of_the_tokenizer(
    tiny: Tokenizer, fast: Callable[[str], list[int] | None], text: str
) -> None:
    assert fast(text) == tiny.encode(text, add_special_tokens=False).ids


def test_every_settled_character_is_the_same_to_both(
    tiny: Tokenizer, fast: Callable[[str], list[int] | None]
) -> None:
    """Beside letters, digits, spaces, line ends, quotes and itself."""
    assert len(SETTLED) > 45_000 and {*"aé中あア한яא、\u3000"} < {*SETTLED}
    texts = ["@ a@b 1@2 @\n'@ @'s @@ -@".replace("@", character) for character in SETTLED]
    expected = tiny.encode_batch_fast(texts, add_special_tokens=False)
    assert [fast(text) for text in texts] == [each.ids for each in expected]
    whole = "".join(SETTLED)
    assert tiny.normalizer.normalize_str(whole) == whole


@pytest.mark.parametrize("text", ["e\u0301", "\u1100\u1161", "\u0915\u093e", "🎉", "ſ", " " * 1_000_000])
def test_what_is_left_to_the_tokenizer(fast: Callable[[str], list[int] | None], text: str) -> None:
    assert fast(text) is None


def other(tokenizer: Tokenizer, change: Callable[[dict[str, Any]], None]) -> Tokenizer:
    spec = json.loads(tokenizer.to_str())
    change(spec)
    return Tokenizer.from_str(json.dumps(spec))


def _set(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(spec: Any) -> None:
        for name in path[:-1]:
            spec = spec[name]
        spec[path[-1]] = value

    return change


def _swap(spec: dict[str, Any]) -> None:
    merges = spec["model"]["merges"]
    merges[3], merges[4] = merges[4], merges[3]


def _unmade(spec: dict[str, Any]) -> None:
    spec["model"]["merges"].pop()


def _byteless(spec: dict[str, Any]) -> None:
    del spec["model"]["vocab"]["Ā"]


@pytest.mark.parametrize(
    "change",
    [
        _set("normalizer", value={"type": "Lowercase"}),
        _set("pre_tokenizer", "pretokenizers", 1, "add_prefix_space", value=True),
        _set("pre_tokenizer", "pretokenizers", 0, "behavior", value="Removed"),
        _set("pre_tokenizer", "pretokenizers", 0, "pattern", "Regex", value=r"\p{L}+|\s+|."),
        _set("pre_tokenizer", "pretokenizers", 1, "use_regex", value=True),
        _set("model", "ignore_merges", value=True),
        _set("model", "dropout", value=0.5),
        _set("added_tokens", 0, "lstrip", value=True),
        _set("added_tokens", 0, "content", value="<|im_start|"),
        _swap,
        _unmade,
        _byteless,
    ],
)
def test_no_proof(tiny: Tokenizer, change: Callable[[dict[str, Any]], None]) -> None:
    assert bpe.proven(tiny) is not None
    assert bpe.proven(other(tiny, change)) is None


def test_a_token_that_its_own_bytes_do_not_become_is_no_proof(tiny: Tokenizer) -> None:
    """`bc` is merged before `ab`, so that `abc` stays `a bc`; tiktoken would join the two."""

    def change(spec: dict[str, Any]) -> None:
        letters = sorted((id, token) for token, id in spec["model"]["vocab"].items())[:256]
        tokens = [*(token for _, token in letters), "bc", "ab", "abc"]
        spec["model"]["vocab"] = {token: id for id, token in enumerate(tokens)}
        spec["model"]["merges"] = [["b", "c"], ["a", "b"], ["ab", "c"]]

    made = other(tiny, change)
    assert len(made.encode("abc", add_special_tokens=False).ids) == 2
    assert bpe.proven(made) is None
