"""Long texts are read beside the event loop, and what they grow to is bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from qvl.engine.errors import TooLarge
from qvl.engine.metrics import Metrics
from qvl.engine.prepare import MOST_CHARACTERS, Preparer, Ready
from qvl.engine.prompt import Template
from qvl.engine.protocol import Content, EmbedRequest, RerankRequest, Tokens
from qvl.engine.text_side import TextSide
from qvl.engine.tokens import PromptTokenizer
from tests.engine.test_tokens import build


class NoMedia:
    async def load(self, contents: Sequence[Content]) -> list[tuple[()]]:
        return [() for _ in contents]


def made(folder: Path) -> TextSide:
    return TextSide(Template("", "", ""), build(folder, reranker=True), 0, 1)


@pytest.mark.parametrize(
    ("words", "loop"), [("a b " * 10, True), ("a b " * 100_000, False), ("é" * 6000, False)]
)
@pytest.mark.parametrize("step", ["clip", "encode", "prompt"])
def test_long_texts_are_read_and_cut_where_they_hold_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, words: str, loop: bool
) -> None:
    on_the_loop: list[bool] = []
    real = getattr(PromptTokenizer, step)

    def noted(self: PromptTokenizer, *args: Any, **settings: Any) -> Any:
        on_the_loop.append(threading.current_thread() is threading.main_thread())
        return real(self, *args, **settings)

    monkeypatch.setattr(PromptTokenizer, step, noted)
    side = made(tmp_path)
    request = RerankRequest(
        query=Content(texts=(words,)),
        documents=(Content(texts=(words, "c")), Content()),
        max_tokens_per_document=3,
    )
    outcomes = asyncio.run(Preparer(NoMedia(), Metrics()).rerank(request, side))
    assert all(isinstance(each, Ready) for each in outcomes)
    assert on_the_loop
    assert set(on_the_loop) == {loop}


def test_a_document_is_cut_as_a_whole(tmp_path: Path) -> None:
    """In its prompt its texts stand end to end."""
    side = made(tmp_path)
    parts = tuple(f"{word} " * 4 for word in ("one", "two", "three"))
    documents = (Content(texts=parts), Content(texts=("".join(parts),)), Content())
    request = RerankRequest(query=Content(texts=("q",)), documents=documents, max_tokens_per_document=10)
    outcomes = asyncio.run(Preparer(NoMedia(), Metrics()).rerank(request, side))
    several, one, none = (each.prompt.ids for each in outcomes if isinstance(each, Ready))
    assert several == one
    assert len(one) <= len(none) + 10


def test_ids_of_many_long_texts_are_not_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most: list[int] = []
    encode = PromptTokenizer.encode

    def noted(self: PromptTokenizer, texts: Sequence[str]) -> list[list[int]]:
        most.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(PromptTokenizer, "encode", noted)
    request = EmbedRequest(input=tuple(Content(texts=("a b",) * (1 + i % 3)) for i in range(200)))
    outcomes = asyncio.run(Preparer(NoMedia(), Metrics()).embed(request, made(tmp_path)))
    lengths = [len(each.prompt.ids) for each in outcomes if isinstance(each, Ready)]
    assert lengths == (lengths[:3] * 67)[:200]
    assert lengths[0] < lengths[1] < lengths[2]
    assert max(most) <= 64
    assert sum(most) == 200


LONG = "a" * (MOST_CHARACTERS // 1000)
"""A body of 130 kB may repeat it a thousand times."""
SHORT = (Content(texts=("a",)),) * 999


@pytest.mark.parametrize(
    "request_of",
    [
        lambda last: RerankRequest(query=Content(texts=(LONG,)), documents=(*SHORT, *last)),
        lambda last: RerankRequest(query=Content(), instruction=LONG, documents=(*SHORT, *last)),
        lambda last: EmbedRequest(input=(*SHORT, *last), instruction=LONG),
    ],
)
def test_what_stands_in_every_prompt_is_bounded(request_of: Any) -> None:
    """Refused before anything is loaded: their texts would fill the memory, and take hours to tokenise."""
    request = request_of([Content(), Content(texts=("a" * 1000,))])
    prepare = Preparer(NoMedia(), Metrics())
    with pytest.raises(TooLarge, match="characters") as refused:
        asyncio.run((prepare.embed if isinstance(request, EmbedRequest) else prepare.rerank)(request, None))
    assert refused.value.code == "prompts_too_large"


def test_token_ids_have_no_instruction(tmp_path: Path) -> None:
    side = made(tmp_path)
    ids = tuple(side.tokenizer.encode(["<|im_start|>"])[0])
    request = EmbedRequest(input=(Tokens(ids=ids),) * 1001, instruction=LONG)
    outcomes = asyncio.run(Preparer(NoMedia(), Metrics()).embed(request, side))
    assert all(isinstance(each, Ready) for each in outcomes)
