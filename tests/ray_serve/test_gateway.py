"""The gateway between two pools, which a small front of prefixes stands for as HAProxy does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from qvl.engine.api import create_app
from qvl.engine.api.cors import with_cors
from qvl.engine.api.information import MODELS_PATHS, READY_PATHS
from qvl.engine.config import EngineConfig, ServerConfig
from qvl.engine.protocol import Health
from qvl.ray_serve.config import PREFIXES
from qvl.ray_serve.gateway import Gateway
from qvl.ray_serve.ingress import Mounted
from tests import web
from tests.engine.http.fake import EMBEDDER, RERANKER, FakeEngine
from tests.ray_serve.front import free_port, serving

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
            engine=EngineConfig(embedder="a", reranker="b"),
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
    app = Pools()
    with serving(app) as port:
        yield app, f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def client(pools: tuple[Pools, str]) -> Iterator[TestClient]:
    with TestClient(Gateway(pools[1])) as client:
        client.headers.update(KEY)
        yield client


def test_answers_come_back_as_they_are(client: TestClient, pools: tuple[Pools, str]) -> None:
    for path in ("/openapi.json", "/docs", "/info", "/version?x=1"):
        through = client.get(path)
        straight = web.get(f"{pools[1]}/v1/embeddings{path}", headers=KEY)
        assert through.status_code == 200, path
        assert through.content == straight.content
        assert through.headers["content-type"] == straight.headers["content-type"]
    assert "qvl_requests_total" in client.get("/metrics").text


def test_errors_come_back_as_they_are(client: TestClient) -> None:
    for method, path, status, code in (
        ("POST", "/nothing", 404, "route_not_found"),
        ("GET", "/score", 405, "method_not_allowed"),
    ):
        answer = client.request(method, path, content=b"nobody reads it")
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["allow"] == "POST"
    for path in ("/v1/models", f"/v1/models/{RERANKER}", "/info"):
        refused = client.get(path, headers={"authorization": "Bearer no"})
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


def test_heads_tell_the_length(client: TestClient) -> None:
    for path in ("/v1/models", "/docs"):
        whole, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) == len(whole.content)


def test_what_both_know_is_joined(client: TestClient, pools: tuple[Pools, str]) -> None:
    for path in MODELS_PATHS:
        assert [each["role"] for each in client.get(path).json()["data"]] == ["embedder", "reranker"], path
    assert client.get("/v1/models", headers={"authorization": "Bearer no"}).status_code == 401
    assert client.get("/health/live").status_code == 200
    for path in READY_PATHS:
        assert client.get(path).json() == {"status": "ready"}
    for model, status in ((EMBEDDER, 200), (RERANKER, 200), ("another", 404), ("a?b", 404)):
        assert client.get(f"/v1/models/{quote(model)}").status_code == status
    assert client.get(f"/v1/models/{RERANKER}").json()["id"] == RERANKER
    assert client.get("/version").json()["version"]
    pools[0].engines[1].ready = Health(ready=False, reason="draining")
    try:
        assert {client.get(path).status_code for path in READY_PATHS} == {503}
    finally:
        pools[0].engines[1].ready = Health(ready=True)


def test_a_question_with_a_body(client: TestClient) -> None:
    """Its length must not go on without it: the pools would wait for the rest."""
    assert client.request("GET", "/v1/models", content=b"{}").status_code == 200
    assert client.post("/v1/models").status_code == 405


def test_pages_of_named_origins_may_read_every_answer(pools: tuple[Pools, str]) -> None:
    origin = "https://app.example"
    asks = {"origin": origin, "access-control-request-method": "GET"}
    with TestClient(with_cors(Gateway(pools[1]), (origin,))) as client:
        answers = [
            client.get(path, headers={**KEY, "origin": origin})
            for path in ("/v1/models", "/health/ready", "/health/live", "/openapi.json")
        ]
        answers.append(client.options("/v1/models", headers=asks))
        refused = client.get("/v1/models", headers={"origin": origin})
    assert {each.status_code for each in answers} == {200}
    assert refused.status_code == 401
    for each in (*answers, refused):
        assert each.headers.get_list("access-control-allow-origin") == [origin]


def break_off(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        while not connection.recv(65536).endswith(b"\r\n\r\n"):
            pass
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")


def test_an_answer_that_breaks_off_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as threads:
        done = threads.submit(break_off, listener)
        with TestClient(Gateway(f"http://127.0.0.1:{listener.getsockname()[1]}")) as client:
            answer = client.get("/docs")
        done.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "pool_unreachable")


def test_a_pool_that_is_not_there() -> None:
    with TestClient(Gateway(f"http://127.0.0.1:{free_port()}")) as client:
        for path in ("/docs", "/v1/models"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "pool_unreachable")
