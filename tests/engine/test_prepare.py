"""Long texts are read beside the event loop, and what they grow to is bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qvl.engine import lengths
from qvl.engine import prepare as prepare_module
from qvl.engine.errors import TooLarge
from qvl.engine.lengths import MOST_CHARACTERS
from qvl.engine.metrics import Metrics
from qvl.engine.prepare import Preparer, Ready
from qvl.engine.prompt import Template
from qvl.engine.protocol import Content, EmbedRequest, RerankRequest, Tokens
from qvl.engine.text_side import TextSide
from qvl.engine.tokens import PromptTokenizer
from tests.engine.test_tokens import build


class NoMedia:
    async def load(self, contents: Sequence[Content], quota: None) -> list[tuple[()]]:
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
    request = EmbedRequest(input=tuple(Content(texts=("a b c d e f ",) * (1 + i % 3)) for i in range(1200)))
    outcomes = asyncio.run(Preparer(NoMedia(), Metrics()).embed(request, made(tmp_path)))
    lengths = [len(each.prompt.ids) for each in outcomes if isinstance(each, Ready)]
    assert lengths == lengths[:3] * 400
    assert lengths[0] < lengths[1] < lengths[2]
    assert max(most) <= 64
    assert sum(most) == 1200


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


def test_a_text_too_long_fails_at_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lengths, prepare_module):
        monkeypatch.setattr(module, "MOST_ITEM_CHARACTERS", most := 40_000)
    fits, over = "a" * most, "a" * (most + 1)
    items = (Content(texts=("b",)), Content(texts=(over,), where="input[1]"), Content(texts=(fits,)))
    prepare, side = Preparer(NoMedia(), Metrics()), made(tmp_path)
    one, error, other = asyncio.run(prepare.embed(EmbedRequest(input=items, on_error="skip"), side))
    assert isinstance(one, Ready)
    assert isinstance(other, Ready)
    assert isinstance(error, TooLarge)
    assert (error.code, error.param) == ("text_too_large", "input[1]")
    ranked = RerankRequest(query=items[0], documents=items, on_error="skip", max_tokens_per_document=3)
    found = asyncio.run(prepare.rerank(ranked, side))
    assert [isinstance(each, TooLarge) for each in found] == [False, True, False]
    with pytest.raises(TooLarge, match="40,001 characters"):
        asyncio.run(prepare.rerank(RerankRequest(query=items[1], documents=items[:1]), side))


def test_of_a_request_whose_caller_has_gone_no_more_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may = threading.Semaphore(0), threading.Event()
    encode = PromptTokenizer.encode

    def slow(self: PromptTokenizer, texts: Sequence[str]) -> list[list[int]]:
        begun.release()
        assert may.wait(300)
        return encode(self, texts)

    monkeypatch.setattr(PromptTokenizer, "encode", slow)
    request = EmbedRequest(input=(Content(texts=("a b " * 1000,)),) * 1000)

    async def run() -> None:
        prepare, side = Preparer(NoMedia(), Metrics()), made(tmp_path)
        gone = [asyncio.create_task(prepare.embed(request, side)) for _ in range(8)]
        for _ in range(2):
            await asyncio.to_thread(begun.acquire)
        for task in gone:
            task.cancel()
        await asyncio.wait(gone)
        may.set()
        few = EmbedRequest(input=request.input[:10])
        assert len(await prepare.embed(few, side)) == 10
        assert begun.acquire(blocking=False)
        assert not begun.acquire(blocking=False)

    asyncio.run(run())


def test_long_and_short_requests_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    encode = PromptTokenizer.encode

    def noted(self: PromptTokenizer, texts: Sequence[str]) -> list[list[int]]:
        read.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(PromptTokenizer, "encode", noted)
    long = Content(texts=("a b " * 10_000,))

    async def run(requests: Callable[[Preparer, TextSide], list[Coroutine[Any, Any, Any]]]) -> None:
        prepare, side = Preparer(NoMedia(), Metrics()), made(tmp_path)
        many = [asyncio.create_task(each) for each in requests(prepare, side)]
        await asyncio.sleep(0)
        assert len(await prepare.embed(EmbedRequest(input=(long,)), side)) == 1
        assert not all(each.done() for each in many)
        for each in many:
            each.cancel()
        await asyncio.wait(many)

    def pairs(prepare: Preparer, side: TextSide) -> list[Coroutine[Any, Any, Any]]:
        """Of one request, each of them on its own."""
        quota, pair = (
            SimpleNamespace(reading=asyncio.Lock()),
            RerankRequest(query=long, documents=(long,) * 2),
        )
        return [prepare.rerank(pair, side, quota) for _ in range(100)]

    asyncio.run(
        run(lambda prepare, side: [prepare.embed(EmbedRequest(input=(long,) * 400), side) for _ in "ab"])
    )
    assert read.index(1) <= 6
    read.clear()
    asyncio.run(run(pairs))
    assert read.index(1) <= 4
