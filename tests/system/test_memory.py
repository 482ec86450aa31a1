"""A server with its caches on: what it knows the model is not asked again, none of its processes grows by
more than 48 MB over 2 000 mixed requests after the first 1 000, and it does not outlive its engine."""

from __future__ import annotations

import base64
import io
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from tests import web
from tests.conftest import STOP_SECONDS, Pair, Server, start_server
from tests.replicas import gone, metric, until
from tests.system.ends import REFUSED, REQUESTS, ask, children, engines

pytestmark = pytest.mark.engine

CLIENTS = 8
WARM, FULL = 1000, 3000
MOST = 48 << 20
"""Bytes: 24 kB a request; an engine process's own heap takes up to half of it, and no more in 48 000."""


def picture(seed: int) -> str:
    noise = random.Random(seed)
    image = Image.frombytes("RGB", (64, 64), noise.randbytes(64 * 64 * 3)).resize((160, 128))
    out = io.BytesIO()
    image.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def request(number: int) -> tuple[str, dict[str, Any], int]:
    """Path, body, expected status: mostly text, some rerank, images (half of them seen before), mistakes."""
    kind = number % 10
    if kind < 6:
        return "/v1/embeddings", {"input": f"text {number}", "encoding_format": "base64"}, 200
    if kind == 6:
        return "/v1/rerank", {"query": f"q {number}", "documents": ["a", "b"]}, 200
    if kind == 7:
        return "/v1/embeddings", {"input": [{"image": picture(number)}]}, 200
    if kind == 8:
        return "/v1/embeddings", {"input": [{"image": picture(number % 50), "text": "same"}]}, 200
    return "/v1/embeddings", {"input": [{"image": "data:image/png;base64,AAAA"}]}, 415


def drive(url: str, numbers: range) -> None:
    limits = httpx.Limits(max_connections=CLIENTS)
    with httpx.Client(base_url=url, timeout=60, limits=limits) as client, ThreadPoolExecutor(CLIENTS) as pool:

        def ask(number: int) -> None:
            path, body, wanted = request(number)
            answer = client.post(path, json=body)
            assert answer.status_code == wanted, answer.text

        list(pool.map(ask, numbers))


def resident(pid: int) -> dict[str, int]:
    """Bytes each process of the family holds on its own (shared pixels are a fixed block)."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return {f"{each.name()}-{each.pid}": each.memory_full_info().uss for each in family}


@pytest.fixture(scope="module")
def caching(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("caching") / "log"
    # Decoded media and answers stay, by design: make their room small enough to be full early.
    options = ("--media-memory", str(16 << 20), "--answer-cache", str(256 << 10))
    with start_server(pair, log, *options) as server:
        yield server


def test_the_model_is_asked_once(caching: Server) -> None:
    image = {"image": picture(-1), "text": "a sign"}
    asked = [
        ("/v1/embeddings", {"input": ["a boat", image], "encoding_format": "base64"}),
        ("/v1/rerank", {"query": "a boat", "documents": ["a ship", image], "raw_scores": True}),
    ]

    def answers() -> list[Any]:
        return [web.post(caching.url + path, json=body, timeout=60).json() for path, body in asked]

    def lookups() -> list[float]:
        name = 'qvl_cache_lookups_total{{cache="answers",result="{}"}}'
        return [metric(caching, name.format(result)) for result in ("hit", "miss")]

    before = lookups()
    first, again = answers(), answers()
    assert [each["data"] for each in first[:1]] == [each["data"] for each in again[:1]]
    assert first[1]["results"] == again[1]["results"]
    assert [each["usage"] for each in first] == [each["usage"] for each in again]
    assert [now - then for now, then in zip(lookups(), before, strict=True)] == [4, 4]


def test_memory_is_flat(caching: Server) -> None:
    drive(caching.url, range(WARM))
    before = resident(caching.process.pid)
    drive(caching.url, range(WARM, FULL))
    after = resident(caching.process.pid)
    assert before.keys() <= after.keys()  # decoders are begun as they are needed
    growth = {name: after[name] - size for name, size in before.items()}
    assert max(growth.values()) <= MOST, growth


def test_a_killed_engine_ends_the_server_with_an_error(caching: Server) -> None:
    family = children(caching)
    with ThreadPoolExecutor(REQUESTS) as clients:
        for engine in engines(caching):
            engine.suspend()  # or it could have answered all before it is killed
        answers = [clients.submit(ask, caching, number) for number in range(REQUESTS)]
        until(lambda: metric(caching, "qvl_requests_in_flight") > REQUESTS)
        for engine in engines(caching):
            with suppress(psutil.NoSuchProcess):  # the first one's end may have ended the other
                engine.kill()
        ready = []
        while caching.process.poll() is None:
            try:
                ready.append(web.get(f"{caching.url}/health/ready", timeout=5).status_code)
            except httpx.HTTPError:
                break
            time.sleep(0.05)
        assert caching.process.wait(STOP_SECONDS) == 3
        statuses = [answer.result() for answer in answers]
    assert 503 in statuses, statuses
    assert set(statuses) <= {503, REFUSED}, statuses
    assert ready == sorted(ready), "once it is not ready, it stays so"
    assert gone(family)
