"""The gateway between two pools, which a small front of prefixes stands for as HAProxy does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import quote

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from qvl.engine.api import create_app
from qvl.engine.api.cors import with_cors
from qvl.engine.api.information import MODELS_PATHS, READY_PATHS
from qvl.engine.config import EngineConfig, Limits, ServerConfig
from qvl.engine.protocol import Health
from qvl.ray_serve.config import PREFIXES
from qvl.ray_serve.gateway import Gateway, pool
from qvl.ray_serve.ingress import Mounted
from tests import web
from tests.engine.http.fake import EMBEDDER, RERANKER, FakeEngine
from tests.ray_serve.front import free_port, serving

Pool = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

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
    app = Pools()
    with serving(app) as port:
        yield app, f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def client(pools: tuple[Pools, str]) -> Iterator[TestClient]:
    with TestClient(Gateway(pools[1], 60)) as client:
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
    straight = web.post(f"{pools[1]}/v1/embeddings/v2/embed", json=body, headers=KEY)
    assert through.status_code == 200
    assert through.json()["embeddings"] == straight.json()["embeddings"]
    assert len(client.post("/", json={"inputs": ["a"]}).json()[0]) == 64
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
    with TestClient(with_cors(Gateway(pools[1], 60), (origin,))) as client:
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


def asked(pool: Pool, body: list[Message], *headers: tuple[bytes, bytes]) -> list[Message]:
    """What the gateway sends for these messages of a client, in front of a pool of raw bytes."""
    sent: list[Message] = []

    async def receive() -> Message:
        return body.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    async def main() -> None:
        over = asyncio.Event()

        async def until_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await pool(reader, writer)
            over.set()

        async with await asyncio.start_server(until_over, "127.0.0.1") as server:
            gateway = Gateway(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 5)
            scope = {"type": "http", "method": "POST", "path": "/score", "query_string": b""}
            try:
                await gateway({**scope, "headers": headers}, receive, send)
            except httpx.HTTPError:
                sent.append({"type": "broken off"})
            await gateway._client.aclose()
            await over.wait()

    asyncio.run(main())
    return sent


def test_an_answer_that_breaks_off_is_not_begun_again() -> None:
    async def pool(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        writer.close()

    sent = asked(pool, [{"type": "http.request", "body": b"", "more_body": False}])
    assert [each["type"] for each in sent] == ["http.response.start", "http.response.body", "broken off"]


@pytest.mark.parametrize("headers", [[(b"content-length", b"9")], []])
def test_half_a_body_is_no_request(headers: list[tuple[bytes, bytes]]) -> None:
    """A client that leaves while it sends: a pool must not take what has come for all there is."""
    seen: list[bytes] = []

    async def pool(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read())
        writer.close()

    half = {"type": "http.request", "body": b"half", "more_body": True}
    sent = asked(pool, [half, {"type": "http.disconnect"}], *headers)
    assert [each.get("status") for each in sent] == [499, None]
    assert seen and b"half" in seen[0] and not seen[0].endswith(b"0\r\n\r\n")


def test_a_pool_that_is_not_there() -> None:
    with TestClient(Gateway(f"http://127.0.0.1:{free_port()}", 5)) as client:
        answer = client.post("/score", json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "pool_unreachable")
        assert client.get("/v1/models").status_code == 503
