"""Large reranks in parts: divided by cost, asked as they were, merged as if they had stayed whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx
import numpy as np
import pytest
from starlette.types import Receive, Scope, Send

from qvl.engine.admission import cost
from qvl.engine.api import create_app, failures
from qvl.engine.api.edge import PART
from qvl.engine.config import EngineConfig, MediaConfig, ServerConfig
from qvl.engine.dialects import rerank
from qvl.engine.dialects.fields import decode
from qvl.engine.errors import NotFound, Overloaded, QvlError, Unavailable
from qvl.engine.protocol import Content, RerankRequest
from qvl.ray_serve.ingress import Mounted
from qvl.ray_serve.split import Split, _body, divide
from tests.engine.http.fake import FakeEngine
from tests.ray_serve.front import free_port, serving
from tests.replicas import until

KEY = {"authorization": "Bearer k"}
CONFIG = ServerConfig(engine=EngineConfig(embedder="a", reranker="b"), api_key=("k rpm=1",))
"""A part that was counted against the rate would be refused."""
SEAL = b"sealed"
QUERY = Content(texts=("red shape",), where="query")


def asked(*texts: str, **options: object) -> RerankRequest:
    documents = tuple(Content(texts=(text,), where=f"documents[{i}]") for i, text in enumerate(texts))
    return RerankRequest(query=QUERY, documents=documents, **options)


@pytest.mark.parametrize("sizes", [[100] * 8, [1, 1, 1, 5000], [5000, 1, 1, 1], [7], [3000] * 3, [0] * 5])
@pytest.mark.parametrize("tokens", [0, 1, 400, 10**9])
def test_parts_are_the_documents_in_order(sizes: list[int], tokens: int) -> None:
    request = asked(*("word" * size for size in sizes))
    parts = divide(request, tokens, 3, MediaConfig())
    assert tuple(each for part in parts for each in part.documents) == request.documents
    assert all(part.documents and replace(part, documents=request.documents) == request for part in parts)
    whole = sum(map(cost, request.documents))
    assert 1 <= len(parts) <= 3
    assert (len(parts) == 1) == (not tokens or whole <= tokens or len(sizes) == 1)
    largest = max(map(cost, request.documents))
    assert len(parts) == 1 or all(
        sum(map(cost, part.documents)) <= whole / min(3, -(-whole // tokens)) + largest for part in parts
    )


def test_a_part_asks_what_was_asked() -> None:
    picture, clip = "data:image/png;base64,AAAA", "https://a/b.gif"
    documents = (
        Content(texts=("a", "b"), images=(picture, picture), videos=(clip, clip), where="documents[0]"),
        Content(videos=((picture, picture),), fps=2.0, max_frames=8, where="documents[1]"),
        Content(where="documents[2]"),
        Content(texts=("",), videos=(clip,), where="documents[3]"),
    )
    for options in (
        {},
        {"model": "m", "instruction": "i", "truncate": False, "max_tokens_per_document": 9},
        {"on_error": "skip", "priority": "batch"},
    ):
        request = RerankRequest(query=QUERY, documents=documents, **options)
        body = decode(rerank.RerankBody, _body(request))
        assert rerank.parse(body) == request
        assert body.raw_scores


class Front:
    """Two replicas that take turns, as HAProxy has it; `trouble` is what the next requests get instead."""

    def __init__(self) -> None:
        self.engines = FakeEngine(), FakeEngine()
        self.apps = [Mounted(create_app(engine, CONFIG, seal=SEAL), "/v1/rerank") for engine in self.engines]
        self.trouble: list[QvlError] = []
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (PART, SEAL) in scope["headers"]
        self.requests += 1
        if self.trouble:
            await failures.send_error(send, self.trouble.pop(0))
        else:
            await self.apps[self.requests % 2](scope, receive, send)

    @property
    def cancelled(self) -> int:
        return sum(engine.cancelled for engine in self.engines)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Front, int]]:
    front = Front()
    with serving(front) as port:
        yield front, port


class Whole:
    """One replica as Ray has it, with the front on `port`; every two documents are a part."""

    def __init__(self, port: int) -> None:
        self.engine = FakeEngine()
        self._port = port

    async def post(
        self, path: str, body: object, leaves: Callable[[], bool] = lambda: False
    ) -> httpx.Response:
        """The answer to a client that goes away when `leaves`."""
        split = Split(self.engine.metrics, f"http://127.0.0.1:{self._port}", 70, 4, SEAL, MediaConfig())
        split.serve(self.engine)
        app = Mounted(create_app(split, CONFIG), "/v1/rerank")
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://r", headers=KEY) as client:
            answer = asyncio.create_task(client.post(path, json=body))
            try:
                async with asyncio.timeout(60):
                    while not (leaves() or (await asyncio.wait({answer}, timeout=0.01))[0]):
                        pass
                answer.cancel()
                return await answer
            finally:
                await split.close()


def post(port: int, body: object, path: str = "/v1/rerank") -> tuple[Whole, httpx.Response]:
    whole = Whole(port)
    return whole, asyncio.run(whole.post(path, body))


BODY = {"query": "a b", "documents": ["a b", "c", "a", "c", "b a", "a c"], "raw_scores": True}


def test_the_answer_is_that_of_the_whole(served: tuple[Front, int]) -> None:
    front, port = served
    front.requests = 0
    whole, answer = post(port, BODY)
    assert [(each["index"], each["relevance_score"]) for each in answer.json()["results"]] == [
        (0, 1.0), (4, 1.0), (2, 0.0), (5, 0.0), (1, -1.0), (3, -1.0),
    ]  # fmt: skip
    assert answer.json()["usage"]["total_tokens"] == 3 * 7
    assert (front.requests, len(whole.engine.requests[0].documents)) == (2, 2)
    scored = {"queries": "a b", "documents": BODY["documents"]}
    data = post(port, scored, "/v1/rerank/score")[1].json()["data"]
    assert np.argsort([-each["score"] for each in data], kind="stable").tolist() == [0, 4, 2, 5, 1, 3]
    assert post(port, {**BODY, "documents": ["a", "b"]})[1].status_code == 200
    assert front.requests == 4


@pytest.mark.parametrize("header", ["x-api-key", "api-key"])
def test_a_part_has_the_key_of_the_whole(
    served: tuple[Front, int], monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    monkeypatch.delitem(KEY, "authorization")
    monkeypatch.setitem(KEY, header, "k")
    assert post(served[1], BODY)[1].status_code == 200


def test_bad_documents_keep_their_places(served: tuple[Front, int]) -> None:
    documents = ["a", "!bad", "b", "c", "d", "!bad"]
    answer = post(served[1], {**BODY, "documents": documents, "on_error": "skip"})[1].json()
    failed = [each for each in answer["results"] if "error" in each]
    assert [(each["index"], each["error"]["param"]) for each in failed] == [
        (1, "documents[1].image"), (5, "documents[5].image"),
    ]  # fmt: skip
    whole = {"text_1": "a", "text_2": ["a", "b", "c", "d", "e", "!bad"]}
    refused = post(served[1], whole, "/v1/rerank/score")[1]
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "text_2[5].image")
    assert refused.json()["error"]["code"] == "undecodable"


def test_what_concerns_the_whole_is_told_once(served: tuple[Front, int]) -> None:
    answer = post(served[1], {**BODY, "model": "other"})[1]
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "model")
    answer = post(served[1], {**BODY, "query": "!bad"})[1]
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "query.image")


def test_a_lost_part_is_sent_once_more(served: tuple[Front, int]) -> None:
    front, port = served
    front.trouble = [Unavailable("gone")]
    assert post(port, BODY)[1].status_code == 200
    front.trouble = [NotFound("no")]
    assert post(port, BODY)[1].status_code == 404
    front.trouble = [Unavailable("gone"), Unavailable("gone"), Unavailable("gone")]
    front.requests = 0
    assert post(port, BODY)[1].status_code == 503
    assert front.requests <= 4
    answer = post(free_port(), BODY)[1]
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "connection_lost")


def test_a_refused_part_waits_for_its_siblings(served: tuple[Front, int]) -> None:
    front, port = served
    front.trouble = [Overloaded("full", retry_after=1)]
    front.requests = 0
    started = time.monotonic()
    assert post(port, BODY)[1].status_code == 200
    assert front.requests == 3
    assert time.monotonic() - started >= 1


def test_refused_here_it_is_refused_at_once(served: tuple[Front, int]) -> None:
    answer = post(served[1], {**BODY, "documents": ["!busy", *BODY["documents"]]})[1]
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")


@pytest.mark.parametrize("documents", [["!slow", *"abcde"], [*"abcde", "!slow"]])
def test_a_client_that_leaves_stops_every_part(served: tuple[Front, int], documents: list[str]) -> None:
    front, port = served
    whole, before = Whole(port), front.cancelled
    engines = whole.engine, *front.engines

    def slow() -> int:
        asked = [each for engine in engines for request in engine.requests for each in request.documents]
        return sum(each.texts == ("!slow",) for each in asked)

    begun = slow() + 1
    # In memory a client leaves by cancelling, which the edge takes for the server's end, and answers.
    body = {**BODY, "documents": documents}
    answer = asyncio.run(whole.post("/v1/rerank", body, leaves=lambda: slow() == begun))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
    until(lambda: whole.engine.cancelled + front.cancelled - before == 1)


def test_a_bad_part_stops_the_others(served: tuple[Front, int]) -> None:
    whole, answer = post(served[1], {**BODY, "documents": ["!slow", "a", "b", "c", "!bad", "d"]})
    assert answer.json()["error"]["param"] == "documents[4].image"
    assert whole.engine.cancelled == 1
