"""The gateway between two pools, which a small front of prefixes stands for as HAProxy does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from litestar.testing import TestClient
from litestar.types import Receive, Scope, Send

from qvl.engine.api import create_app
from qvl.engine.config import EngineConfig, Limits, ServerConfig
from qvl.engine.protocol import Health
from qvl.ray_serve.config import PREFIXES
from qvl.ray_serve.gateway import Gateway, pool
from qvl.ray_serve.ingress import Mounted
from tests.conftest import free_port
from tests.engine.http.fake import FakeEngine

KEY = {"authorization": "Bearer k"}


class Half(FakeEngine):
    """A pool with one model."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place

    def models(self) -> list[object]:
        return super().models()[self.place : self.place + 1]


class Pools:
    """Two pools and the choice between them."""

    def __init__(self) -> None:
        server = ServerConfig(
            engine=EngineConfig(embedder="a", reranker="b", limits=Limits(body_bytes=20 << 20)),
            api_key=("k",),
        )
        self.engines = Half(0), Half(1)
        self.apps = [
            (prefix, Mounted(create_app(engine, server), prefix))
            for engine, prefix in zip(self.engines, (PREFIXES["embedder"], PREFIXES["reranker"]), strict=True)
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for prefix, app in self.apps:
            if (scope["path"] + "/").startswith(prefix + "/"):
                await app(scope, receive, send)


@pytest.fixture(scope="module")
def pools() -> Iterator[tuple[Pools, str]]:
    port, app = free_port(), Pools()
    server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan="off", log_config=None))
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield app, f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def client(pools: tuple[Pools, str]) -> Iterator[TestClient]:
    with TestClient(Gateway(pools[1], 10)) as client:
        client.headers.update(KEY)
        yield client


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("/v2/embed", "embedder"),
        ("/v1/multimodalembeddings", "embedder"),
        ("/v2/rerank", "reranker"),
        ("/rerank/", "reranker"),
        ("/score", "reranker"),
        ("/v1/score", "reranker"),
        ("/openapi.json", "embedder"),
        ("/anything/rerank", "embedder"),
    ],
)
def test_which_pool(path: str, prefix: str) -> None:
    assert pool(path) == PREFIXES[prefix]


def test_answers_come_back_as_they_are(client: TestClient, pools: tuple[Pools, str]) -> None:
    body = {"texts": ["a"] * 50, "embedding_types": ["float"]}
    through = client.post("/v2/embed", json=body)
    straight = httpx.post(f"{pools[1]}/v1/embeddings/v2/embed", json=body, headers=KEY)
    assert through.status_code == 200
    assert through.json()["embeddings"] == straight.json()["embeddings"]
    scored = client.post("/score?x=1", json={"queries": "a b", "documents": ["a b", "c"]}).json()
    assert scored["data"][0]["score"] > scored["data"][1]["score"]


def test_errors_come_back_as_they_are(client: TestClient) -> None:
    for method, path, status, code in (
        ("POST", "/nothing", 404, "route_not_found"),
        ("GET", "/score", 405, "method_not_allowed"),
        ("POST", "/v2/rerank", 400, "invalid_json"),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    refused = client.post("/score", json={}, headers={"authorization": "Bearer no"})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


def test_a_large_body_passes(client: TestClient) -> None:
    answer = client.post("/v2/embed", json={"texts": ["word " * 2_000_000]})
    assert answer.status_code == 200


def test_what_both_know_is_joined(client: TestClient, pools: tuple[Pools, str]) -> None:
    assert [each["role"] for each in client.get("/v1/models").json()["data"]] == ["embedder", "reranker"]
    assert client.get("/v1/models", headers={"authorization": "Bearer no"}).status_code == 401
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").json() == {"status": "ready"}
    pools[0].engines[1].ready = Health(ready=False, reason="draining")
    try:
        assert client.get("/health/ready").status_code == 503
    finally:
        pools[0].engines[1].ready = Health(ready=True)


def test_a_pool_that_is_not_there() -> None:
    with TestClient(Gateway(f"http://127.0.0.1:{free_port()}", 5)) as client:
        answer = client.post("/score", json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "pool_unreachable")
        assert client.get("/v1/models").status_code == 503
