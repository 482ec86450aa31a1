"""Pairs of one request: admitted together, given back together, none of them left behind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from qvl.engine.admission import cost
from qvl.engine.api import create_app
from qvl.engine.api.replica import Replica
from qvl.engine.config import EngineConfig, Limits, ServerConfig
from qvl.engine.engine import Engine
from qvl.engine.errors import Overloaded, QvlError, TooLarge, Unprocessable
from qvl.engine.lengths import MOST_CHARACTERS
from qvl.engine.metrics import Metrics
from qvl.engine.prepare import Outcome, Ready
from qvl.engine.prompt import Prompt
from qvl.engine.protocol import Content, RerankRequest
from tests.engine.conftest import turns

WORDS = Content(texts=("word " * 40,))
PAIRS = (RerankRequest(query=WORDS, documents=(WORDS,)),) * 30


class Model:
    """A reranker that answers once it may."""

    checkpoint = SimpleNamespace(role="reranker", path="", dimensions=1)
    text = None
    names = ("it",)

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.running = 0

    def called(self, name: str | None) -> str:
        return name or "it"

    async def run(self, ready: list[Ready], priority: str, name: str | None) -> list[Any]:
        self.running += 1
        try:
            await self.may.wait()
            await asyncio.sleep(0)
        finally:
            self.running -= 1
        return [np.ones(1, np.float32) for _ in ready]


class Preparer:
    def __init__(self) -> None:
        self.quotas: list[object] = []

    def quota(self) -> object:
        return object()

    async def rerank(self, request: RerankRequest, side: object, quota: object = None) -> list[Outcome]:
        self.quotas.append(quota)
        if request.query.texts == ("!bad",):
            raise Unprocessable("cannot be read")
        return [Ready(Prompt([1, 2]), ()) for _ in request.documents]


def serving() -> tuple[Engine, Model]:
    """As much at once as three of the pairs."""
    model = Model()
    config = EngineConfig(reranker="it", limits=Limits(queue_tokens=3 * cost(PAIRS[0])))
    return Engine(config, [model], Preparer(), Metrics()), model


def test_many_come_in_where_nothing_else_is() -> None:
    engine, model = serving()
    model.may.set()
    client = TestClient(create_app(engine, ServerConfig(engine=engine.config)))
    answer = client.post("/score", json={"queries": ["word " * 40] * 30, "documents": ["word " * 40] * 30})
    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 30


def test_they_come_in_together() -> None:
    async def run() -> None:
        engine, model = serving()
        asked = asyncio.create_task(engine.score(PAIRS))
        await turns()
        assert engine.held == cost(PAIRS) == len(PAIRS) * cost(PAIRS[0])
        assert model.running == len(PAIRS)
        with pytest.raises(Overloaded):
            await engine.score(PAIRS[:2])
        model.may.set()
        results = await asked
        quotas = engine._preparer.quotas
        assert len(quotas) == len(PAIRS)
        assert quotas[0] is not None
        assert len(set(quotas)) == 1
        assert [result.logits.tolist() for result in results] == [[1.0]] * len(PAIRS)
        assert engine.held == 0

    asyncio.run(run())


def test_their_texts_count_together() -> None:
    long = "a" * (MOST_CHARACTERS // len(PAIRS))

    async def run() -> None:
        engine, _ = serving()
        fits = RerankRequest(query=Content(), documents=(Content(texts=(long,)),))
        with pytest.raises(TooLarge, match="prompts of this request"):
            await engine.score((replace(fits, instruction="b" * 100),) * len(PAIRS))

    asyncio.run(run())


def test_one_that_fails_ends_the_others() -> None:
    async def run() -> None:
        engine, model = serving()
        bad = RerankRequest(query=Content(texts=("!bad",)), documents=(WORDS,))
        with pytest.raises(QvlError, match="cannot be read"):
            await engine.score((*PAIRS, bad))
        await turns()
        assert (engine.held, model.running) == (0, 0)

    asyncio.run(run())


def test_a_replica_holds_what_it_has_begun_until_the_end_however_it_comes() -> None:
    async def run() -> None:
        engine, model = serving()
        replica = Replica(Metrics())
        assert replica.held == 0
        replica.serve(engine)
        left, stays = (asyncio.create_task(replica.rerank(PAIRS[0])) for _ in range(2))
        await turns()
        with pytest.raises(Overloaded):
            await replica.score(PAIRS[:2])
        assert replica.held == 2 * cost(PAIRS[0])
        left.cancel()
        await asyncio.wait([left])
        assert replica.held == cost(PAIRS[0])
        model.may.set()
        await stays
        assert replica.held == 0

    asyncio.run(run())
