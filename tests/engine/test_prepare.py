"""Long texts are read beside the event loop, short ones on it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from qvl.engine.checkpoint import TextSide
from qvl.engine.metrics import Metrics
from qvl.engine.prepare import Preparer, Ready
from qvl.engine.prompt import Template
from qvl.engine.protocol import Content, RerankRequest
from qvl.engine.tokens import PromptTokenizer
from tests.engine.test_tokens import build


class NoMedia:
    async def load(self, contents: Sequence[Content]) -> list[tuple[()]]:
        return [() for _ in contents]


@pytest.mark.parametrize("words", [10, 100_000])
def test_documents_are_cut_where_they_hold_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: int
) -> None:
    on_the_loop: list[bool] = []
    clip = PromptTokenizer.clip

    def noted(self: PromptTokenizer, text: str, tokens: int) -> str:
        on_the_loop.append(threading.current_thread() is threading.main_thread())
        return clip(self, text, tokens)

    monkeypatch.setattr(PromptTokenizer, "clip", noted)
    side = TextSide(Template("", "", ""), build(tmp_path, reranker=True), 0, 1)
    request = RerankRequest(
        query=Content(texts=("a",)),
        documents=(Content(texts=("a b " * words, "c")), Content()),
        max_tokens_per_document=3,
    )
    outcomes = asyncio.run(Preparer(NoMedia(), Metrics()).rerank(request, side))
    assert all(isinstance(each, Ready) for each in outcomes)
    assert on_the_loop == [words == 10] * 2
