"""`POST /v1/search` over the stand-in engine: two stages, one, none; filters; what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from qvl.engine.api import create_app
from qvl.engine.api.replica import Replica
from qvl.engine.client import Client as OwnClient
from qvl.engine.config import Limits
from qvl.engine.dialects import search as dialect
from qvl.engine.errors import NotFound
from qvl.engine.metrics import Metrics
from qvl.engine.protocol import Content, EmbedRequest, EmbedResult, ModelCard, RerankRequest, RerankResult
from qvl.engine.search import canary, searcher
from qvl.engine.search.embedded import Embedded
from qvl.engine.search.index import Entry, Layout
from tests.engine.http.conftest import Client, on_a_port, settings
from tests.engine.http.fake import EMBEDDER, WIDTH, FakeEngine, vector

TEXTS = ["a red boat", "a blue boat", "a red bike", "the sea", "!bad"]


class EmbedderOnly(FakeEngine):
    def models(self) -> list[ModelCard]:
        return super().models()[:1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The five texts, with vectors that a query `TEXTS[i]` without an instruction would have too."""
    index = Embedded(tmp_path / "index", writable=True)
    own = canary.written(vector(Content(texts=(canary.CANARY,))))
    index.prepare(Layout(model=EMBEDDER, dimensions=WIDTH, prefix=WIDTH, canary=own))
    entries = [
        Entry(
            id=f"t{i}",
            digest=text,
            item=orjson.dumps({"text": text}),
            metadata={"place": i, "odd": i % 2 == 1},
        )
        for i, text in enumerate(TEXTS)
    ]
    index.put(entries, np.stack([vector(content) for content in dialect.contents([e.item for e in entries])]))
    index.close()
    return tmp_path / "index"


@pytest.fixture
def client(make: Callable[..., Client], folder: Path) -> Client:
    return make(index=str(folder))


@pytest.mark.parametrize("name", ["index", "one that is empty"])
def test_the_index_is_in_memory_before_anybody_searches(
    make: Callable[..., Client], folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    load, loaded = Embedded.load, threading.Event()

    def noted(index: Embedded) -> None:
        load(index)
        loaded.set()

    monkeypatch.setattr(Embedded, "load", noted)
    make(index=str(folder.with_name(name)))
    assert loaded.wait(30)


def search(client: Client, status: int = 200, **body: Any) -> Any:
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == status, answer.text
    return answer.json() if status == 200 else answer.json()["error"]


def test_vectors_recall_and_the_reranker_orders(client: Client, engine: FakeEngine) -> None:
    answer = search(client, query="a red boat", top_n=3)
    assert answer["reranked"] is True
    assert (answer["model"], answer["rerank_model"], answer["candidates"]) == (EMBEDDER, "tiny-reranker", 5)
    # The stand-in's score is the number of words in common.
    assert [each["id"] for each in answer["results"]] == ["t0", "t1", "t2"] or [
        each["id"] for each in answer["results"]
    ] == ["t0", "t2", "t1"]
    first = answer["results"][0]
    assert first["document"] == {"text": "a red boat"}
    assert first["metadata"] == {"place": 0, "odd": False}
    assert first["relevance_score"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert answer["usage"]["total_tokens"] > 0
    embedded, _, reranked = engine.requests  # that between is the canary's
    assert embedded.instruction == "Retrieve images or text relevant to the user's query."
    assert (embedded.dimensions, reranked.instruction) == (WIDTH, None)


def test_a_busy_index_holds_up_no_other_route(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for in threads of its own, and items of any size are read off the event loop."""
    threads: list[str] = []

    def recorded(whose: Any, name: str) -> None:
        real = getattr(whose, name)

        def call(*given: Any) -> Any:
            threads.append(threading.current_thread().name.rpartition("_")[0])
            return real(*given)

        monkeypatch.setattr(whose, name, call)

    recorded(Embedded, "find")
    recorded(dialect, "contents")
    recorded(searcher, "contents")
    search(client, query="a red boat")
    assert threads == ["qvl-index", "asyncio", "asyncio"]


def test_what_the_reranker_cannot_read_stays_where_its_vector_put_it(client: Client) -> None:
    by_vectors = search(client, query="a red boat", top_n=10, rerank=False)["results"]
    place = [each["id"] for each in by_vectors].index("t4")
    assert place < len(by_vectors) - 1
    answer = search(client, query="a red boat", top_n=10)
    unread = answer["results"].pop(place)
    assert (unread["id"], unread["error"]["code"]) == ("t4", "undecodable")
    assert "relevance_score" not in unread
    scores = [each["relevance_score"] for each in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert "could not read 1 of 5 candidates" in answer["note"]
    assert answer["note"].endswith(f"{unread['error']['message']} (undecodable)")


def test_recall_alone_has_the_order_of_the_cosine(client: Client, engine: FakeEngine) -> None:
    answer = search(client, query="the sea", rerank=False, instruction="", return_documents=False)
    assert (answer["reranked"], answer["rerank_model"]) == (False, None)
    assert answer["note"].startswith("rerank is false")
    similar = [each["similarity"] for each in answer["results"]]
    assert similar == sorted(similar, reverse=True)
    assert "document" not in answer["results"][0]
    assert all(isinstance(each, EmbedRequest) for each in engine.requests)


def test_without_a_reranker_the_answer_says_so(folder: Path, make: Callable[..., Client]) -> None:
    with on_a_port(EmbedderOnly(), index=str(folder)) as url, OwnClient(url) as client:
        answer = client.search_reply({"query": "a red boat"})
        assert answer["reranked"] is False
        assert answer["note"] == "no reranker is served: the results are in the order of their vectors"
        with pytest.raises(NotFound) as caught:
            client.search("a red boat", rerank=True)
        assert (caught.value.param, caught.value.code) == ("rerank", "model_not_found")


@pytest.mark.parametrize(
    ("rules", "places"),
    [
        ({"odd": True}, {1, 3}),
        ({"place": [0, 3, 9]}, {0, 3}),
        ({"place": {"gte": 1, "lt": 4}, "odd": False}, {2}),
        ({"place": {"gt": 1.5}}, {2, 3, 4}),
        ({"odd": "true"}, set()),
        ({"place": {"gte": "0"}}, set()),
        ({}, {0, 1, 2, 3, 4}),
    ],
)
def test_filters(client: Client, rules: dict[str, Any], places: set[int]) -> None:
    answer = search(client, query="a red boat", filter=rules)
    assert {each["metadata"]["place"] for each in answer["results"]} == places
    assert answer["candidates"] == len(places)


def test_the_client_has_it_too(folder: Path) -> None:
    with on_a_port(FakeEngine(), index=str(folder)) as url, OwnClient(url) as client:
        found = client.search("a red boat", top_n=2, filter={"odd": False})
    assert [(each.id, each.document, each.metadata["place"]) for each in found] == [
        ("t0", {"text": "a red boat"}, 0),
        ("t2", {"text": "a red bike"}, 2),
    ]
    assert found[0].score is not None
    assert found[0].score > found[1].score


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 400, "missing_field", "query"),
        ({"query": "a", "top": 3}, 400, "unknown_field", "top"),
        ({"query": "a", "top_n": 0}, 400, "invalid_request", "top_n"),
        ({"query": "a", "recall": 11}, 413, "too_many_documents", "recall"),
        ({"query": "a", "top_n": 500}, 413, "too_many_documents", "top_n"),
        ({"query": "a", "filter": []}, 400, "invalid_request", "filter"),
        ({"query": "a", "filter": {"odd": None}}, 400, "invalid_request", "filter.odd"),
        ({"query": "a", "filter": {"place": {"ge": 1}}}, 400, "invalid_request", "filter.place"),
        ({"query": "a", "filter": {"place": {"gte": [1]}}}, 400, "invalid_request", "filter.place.gte"),
        ({"query": "a", "filter": {"place": {"gte": "1", "lt": 2}}}, 400, "invalid_request", "filter.place"),
        ({"query": "a", "filter": {"place": {}}}, 400, "invalid_request", "filter.place"),
        ({"query": "a", "filter": {"place": []}}, 400, "invalid_request", "filter.place"),
        ({"query": "a", "filter": {"place": 2**70}}, 400, "invalid_request", "filter.place"),
        ({"query": "a", "filter": {"a' OR 1=1": 1}}, 400, "invalid_request", "filter"),
        ({"query": "a", "filter": {f"k{i}": [0] * 500 for i in range(21)}}, 400, "invalid_request", "filter"),
        ({"query": {"image": "x", "content": "y"}}, 400, "conflicting_fields", "query.content"),
        ({"query": "a", "model": "other"}, 404, "model_not_found", "model"),
        ({"query": "a", "rerank_model": "other"}, 404, "model_not_found", "rerank_model"),
        ({"query": "!bad"}, 422, "undecodable", "query.image"),
    ],
)
def test_refusals(
    make: Callable[..., Client], folder: Path, body: dict[str, Any], status: int, code: str, param: str
) -> None:
    error = search(make(index=str(folder), limits=Limits(documents=10)), status, **({"recall": 10} | body))
    assert (error["code"], error["param"]) == (code, param), error
    assert len(error["message"]) < 300


def test_an_index_may_be_empty_or_missing(make: Callable[..., Client], tmp_path: Path) -> None:
    answer = search(make(index=str(tmp_path / "new")), query="a")
    assert (answer["results"], answer["candidates"]) == ([], 0)
    assert search(make(), 404, query="a")["code"] == "no_index"


class Leaving(FakeEngine):
    """Its replica is told to go while the query is embedded."""

    def __init__(self, leave: Callable[[Replica], None]) -> None:
        super().__init__()
        self.leave, self.replica = leave, Replica(Metrics())
        self.replica.serve(self)

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        self.leave(self.replica)
        return await super().embed(request)

    async def rerank(self, request: RerankRequest) -> RerankResult:
        assert not self.replica._idle.is_set()
        return await super().rerank(request)


@pytest.mark.parametrize(("leave", "first"), [("drain", 200), ("cut", 503)])
def test_a_drain_waits_for_both_stages(folder: Path, leave: str, first: int) -> None:
    engine = Leaving(Replica.drain if leave == "drain" else lambda replica: replica.cut("draining"))
    with Client(create_app(engine.replica, settings(index=str(folder)))) as client:
        search(client, first, query="a red boat")
        assert engine.replica._idle.is_set()
        assert search(client, 503, query="a red boat")["code"] == "draining"


def test_a_bound_of_another_name_is_told_which_there_are(client: Client) -> None:
    said = search(client, 400, query="a", filter={"place": {"foo": 1}})["message"]
    assert said.endswith("; bounds are gt, gte, lt, lte")
