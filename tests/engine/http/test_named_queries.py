"""`NAME:query`, on every route that embeds: a client that can set nothing but a model's name."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from langchain_openai import OpenAIEmbeddings

from qvl.engine.dialects import tasks
from tests import web
from tests.conftest import Server
from tests.engine.http.conftest import Client, on_a_port
from tests.engine.http.fake import EMBEDDER, RERANKER, FakeEngine

E, QUERY = "/v1/embeddings", f"{EMBEDDER}:query"
TEXT = {"content": [{"type": "text", "text": "a"}]}
BODIES: list[tuple[str, dict[str, Any], str]] = [
    (E, {"input": "a"}, "input_type"),
    (E, {"input": ["a", {"text": "b"}]}, "prompt_name"),
    (E, {"messages": [{"role": "user", "content": "a"}]}, "task"),
    ("/v1/embed", {"texts": ["a"]}, "input_type"),
    ("/v2/embed", {"inputs": [TEXT]}, "input_type"),
    ("/embed", {"inputs": "a"}, "prompt_name"),
    ("/", {"inputs": ["a"]}, "prompt_name"),
    ("/v1/multimodalembeddings", {"inputs": [TEXT]}, "input_type"),
]


@pytest.mark.parametrize(("path", "body", "field"), BODIES)
def test_it_is_the_task(
    client: Client, engine: FakeEngine, path: str, body: dict[str, Any], field: str
) -> None:
    for more in ({"model": QUERY}, {"model": QUERY, field: "query"}, {"model": EMBEDDER, field: "query"}):
        assert client.post(path, json={**body, **more}).status_code == 200
    first, second, told = engine.requests
    assert first == second == told
    assert told.instruction == tasks.QUERY
    refused = client.post(path, json={**body, "model": QUERY, field: "document"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)
    assert "contradict each other" in refused.json()["detail"]


def test_the_callers_own_words_win(client: Client, engine: FakeEngine) -> None:
    system = [{"role": "system", "content": "mine"}, {"role": "user", "content": "a"}]
    for body in (
        {"input": "a", "instruction": "mine"},
        {"input": "a", "instruction": "mine", "input_type": "document"},
        {"input": {"text": "a", "instruction": "mine"}},
        {"messages": system},
    ):
        assert client.post(E, json={**body, "model": QUERY}).json()["model"] == EMBEDDER
        asked = engine.requests.pop()
        assert (asked.input[0].instruction or asked.instruction) == "mine"


@pytest.mark.parametrize("ids", [[1, 2], [[1, 2], [3]], ["a", [3]]])
def test_token_ids_hold_no_instruction(client: Client, ids: Any) -> None:
    answer = client.post(E, json={"input": ids, "model": QUERY})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    assert "check_embedding_ctx_length=False" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (E, {"input": "a", "model": "other:query"}),
        (E, {"input": "a", "model": f"{QUERY}:query"}),
        (E, {"input": "a", "model": f"{RERANKER}:query"}),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "model": f"{RERANKER}:query"}),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "model": QUERY}),
    ],
)
def test_no_other_name_has_it(client: Client, path: str, body: dict[str, Any]) -> None:
    assert client.post(path, json=body).json()["error"]["code"] == "model_not_found"


def test_it_is_a_model_that_is_not_listed(client: Client) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert [each["id"] for each in listed] == [EMBEDDER, RERANKER]
    assert client.get(f"/v1/models/{QUERY}").json() == {**listed[0], "id": QUERY}
    for name in (f"{RERANKER}:query", f"{QUERY}:query", "other:query", ":query"):
        assert client.get(f"/v1/models/{name}").status_code == 404


def test_langchain() -> None:
    """Two of its embedders: one for each side of a search."""
    with on_a_port(FakeEngine()) as url, httpx.Client(timeout=120) as http:  # langchain closes none
        common: dict[str, Any] = {
            "base_url": f"{url}/v1",
            "api_key": "-",
            "http_client": http,
            "check_embedding_ctx_length": False,
        }
        queries, documents = (OpenAIEmbeddings(model=name, **common) for name in (QUERY, EMBEDDER))
        assert not np.allclose(queries.embed_query("a"), documents.embed_query("a"), atol=1e-3)


@pytest.mark.engine
def test_its_vector_is_that_of_a_query(server: Server) -> None:
    def ask(name: str, **more: str) -> Any:
        answer = web.post(f"{server.url}{E}", json={"input": "a red circle", "model": name, **more}).json()
        return answer["data"][0]["embedding"], answer["model"]

    (query, name), (told, _), (document, _) = (
        ask(f"{server.embedder}:query"),
        ask(server.embedder, input_type="query"),
        ask(server.embedder),
    )
    assert name == server.embedder
    np.testing.assert_allclose(query, told, atol=1e-6)
    assert not np.allclose(query, document, atol=1e-3)
    body = {"query": "a", "documents": ["b"], "model": f"{server.reranker}:query"}
    refused = web.post(f"{server.url}/v1/rerank", json=body)
    assert refused.status_code == 404
    assert ":query is for an embedder's name" in refused.json()["detail"]
