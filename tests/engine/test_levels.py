"""How full a server is, and what was done for whom, as `/metrics` has it."""

from __future__ import annotations

import asyncio

from starlette.testclient import TestClient

from qvl.engine.admission import cost
from qvl.engine.api import create_app
from qvl.engine.config import ServerConfig
from qvl.engine.metrics import Metrics
from qvl.engine.protocol import Usage
from tests.engine.conftest import turns
from tests.engine.test_pairs import PAIRS, serving


def value(metrics: Metrics, series: str) -> float:
    lines = metrics.render().decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{series} "))


def test_tokens_in_progress_beside_their_limit() -> None:
    async def run() -> None:
        engine, model = serving()
        asked = asyncio.create_task(engine.score(PAIRS[:2]))
        await turns()
        assert value(engine.metrics, "qvl_tokens_in_progress") == 2 * cost(PAIRS[0])
        assert value(engine.metrics, "qvl_tokens_in_progress_limit") == 3 * cost(PAIRS[0])
        model.may.set()
        await asked
        assert value(engine.metrics, "qvl_tokens_in_progress") == 0

    asyncio.run(run())


def test_tokens_are_their_keys() -> None:
    engine, model = serving()
    model.may.set()
    config = ServerConfig(engine=engine.config, api_key=("k1 name=one", "k2 name=two"))
    client = TestClient(create_app(engine, config))
    for key, pairs in (("k1", 3), ("k2", 1), ("k1", 2)):
        body = {"queries": ["a"] * pairs, "documents": ["b"] * pairs}
        answer = client.post("/score", json=body, headers={"x-api-key": key})
        assert answer.status_code == 200
    assert value(engine.metrics, 'qvl_key_tokens_total{key="one"}') == 2 * 5
    assert value(engine.metrics, 'qvl_key_tokens_total{key="two"}') == 2


def test_media_are_their_keys() -> None:
    metrics = Metrics()
    for key in ("one", "two", "one"):
        metrics.usage("embedder", 1, Usage(text_tokens=1, visual_tokens=9, images=2, videos=1), key)
    assert value(metrics, 'qvl_key_media_total{key="one"}') == 6
    assert value(metrics, 'qvl_key_tokens_total{key="one"}') == 20
