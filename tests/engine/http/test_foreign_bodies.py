"""Bodies as clients send them that are not among our dependencies, and what those read in the answers.

Each test names the client and the file of its source that the body was read from.
"""

from __future__ import annotations

import base64
from typing import Any, ClassVar

import numpy as np
import pytest

from qvl.engine.dialects import tasks
from tests.engine.http.conftest import Client
from tests.engine.http.fake import EMBEDDER, RERANKER, WIDTH, FakeEngine

E, R = "/v1/embeddings", "/v1/rerank"
DOCUMENTS = ["a car", "a red bicycle", "a red car"]


def ask(client: Client, path: str, **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


class TestVoyage:
    """`voyageai/client.py`, `api_resources/`; every argument is sent, be it None."""

    EMBED: ClassVar[dict[str, Any]] = {
        "model": EMBEDDER,
        "input_type": None,
        "truncation": True,
        "output_dtype": None,
        "output_dimension": None,
        "encoding_format": "base64",
    }
    RERANK: ClassVar[dict[str, Any]] = {"query": "red bicycle", "documents": DOCUMENTS, "model": RERANKER}

    def test_embed(self, client: Client, engine: FakeEngine) -> None:
        answer = ask(client, E, input=["a", "b"], **self.EMBED)
        vectors = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in answer["data"]]
        assert np.shape(vectors) == (2, WIDTH)
        assert answer["usage"]["total_tokens"] > 0
        assert (engine.requests[0].instruction, engine.requests[0].truncate) == (None, True)

    def test_options_of_embed(self, client: Client, engine: FakeEngine) -> None:
        options = {"input_type": "query", "truncation": False, "output_dtype": "int8", "output_dimension": 16}
        (row,) = ask(client, E, input=["a"], **{**self.EMBED, **options})["data"]
        assert np.frombuffer(base64.b64decode(row["embedding"]), np.int8).shape == (16,)
        request = engine.requests[0]
        assert (request.instruction, request.truncate, request.dimensions) == (tasks.QUERY, False, 16)

    def test_two_dimensions(self, client: Client) -> None:
        body = {"input": "a", "dimensions": 8}
        assert client.post(E, json={**body, "output_dimension": 8}).status_code == 200
        error = client.post(E, json={**body, "output_dimension": 16}).json()["error"]
        assert (error["code"], error["param"]) == ("conflicting_fields", "output_dimension")

    @pytest.mark.parametrize(("top_k", "count"), [(2, 2), (None, 3)])
    def test_rerank(self, client: Client, top_k: int | None, count: int) -> None:
        answer = ask(client, R, **self.RERANK, top_k=top_k, truncation=True)
        assert [each["index"] for each in answer["data"]] == [1, 2, 0][:count]
        scores = [each["relevance_score"] for each in answer["data"]]
        assert scores == sorted(scores, reverse=True)
        assert answer["object"] == "list"
        assert answer["usage"]["total_tokens"] > 0
        assert "results" not in answer

    def test_documents_of_rerank(self, client: Client) -> None:
        answer = ask(client, R, **self.RERANK, top_k=1, return_documents=True)
        assert answer["data"][0]["document"] == DOCUMENTS[1]

    def test_its_answer_is_for_those_who_ask_for_it(self, client: Client) -> None:
        assert len(ask(client, R, **self.RERANK, top_n=2)["results"]) == 2
        refused = client.post(R, json={**self.RERANK, "top_n": 2, "top_k": 1})
        assert refused.json()["error"]["code"] == "conflicting_fields"

    def test_a_failed_document(self, client: Client) -> None:
        body = {**self.RERANK, "documents": ["!bad", "a"], "top_k": None, "on_error": "skip"}
        assert [(each["index"], "error" in each) for each in ask(client, R, **body)["data"]] == [
            (1, False),
            (0, True),
        ]

    @pytest.mark.parametrize(("text", "status"), [("!busy", 429), ("!bad", 422)])
    def test_errors(self, client: Client, text: str, status: int) -> None:
        """`api_requestor.py` of 0.5 makes a 429 its RateLimitError (tried again) if it has a `detail`."""
        answer = client.post(E, json={"input": [text], **self.EMBED})
        assert answer.status_code == status
        assert answer.json()["detail"] == answer.json()["error"]["message"]


class TestTEI:
    """`router/src/http/types.rs`."""

    @pytest.mark.parametrize("path", ["/embed", "/"])
    @pytest.mark.parametrize("inputs", ["a", ["a"]])
    def test_embed(self, client: Client, path: str, inputs: Any) -> None:
        (vector,) = ask(client, path, inputs=inputs, normalize=True, truncate=True)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)

    def test_options_of_embed(self, client: Client, engine: FakeEngine) -> None:
        options = {"truncation_direction": "Right", "prompt_name": "query", "dimensions": 8}
        rows = ask(client, "/embed", inputs=["a", "b"], truncate=False, **options)
        assert np.shape(rows) == (2, 8)
        assert (engine.requests[0].instruction, engine.requests[0].truncate) == (tasks.QUERY, False)

    def test_weaviate(self, client: Client) -> None:
        """`modules/text2vec-huggingface/clients/huggingface.go`."""
        options = {"wait_for_model": True, "use_gpu": False, "use_cache": True}
        assert np.shape(ask(client, "/", inputs=["a", "b"], options=options)) == (2, WIDTH)

    @pytest.mark.parametrize(
        ("path", "body"), [("/embed", {"inputs": "a"}), ("/rerank", {"query": "a", "texts": ["b"]})]
    )
    def test_what_is_refused(self, client: Client, path: str, body: dict[str, Any]) -> None:
        ask(client, path, **body, truncation_direction="Right", truncate=True)
        answer = client.post(path, json={**body, "truncation_direction": "Left"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "truncation_direction")

    def test_lengths(self, client: Client) -> None:
        answer = client.post("/embed", json={"inputs": "a", "normalize": False})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "normalize")

    @pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
    def test_rerank(self, client: Client, path: str) -> None:
        """LangChain's and LlamaIndex's TEI rerankers and Haystack's `tei.py` send these, too."""
        body = {"query": "red bicycle", "texts": DOCUMENTS, "truncate": True}
        answer = ask(client, path, **body)
        assert [list(each) for each in answer] == [["index", "score"]] * 3
        assert [each["index"] for each in answer] == [1, 2, 0]
        assert 0 < answer[2]["score"] < answer[0]["score"] < 1
        raw = ask(client, path, **body, raw_scores=True, return_text=True)
        assert [each["score"] for each in raw] == [1, 0, -1]
        assert [each["text"] for each in raw] == [DOCUMENTS[each["index"]] for each in raw]
        assert [each["index"] for each in ask(client, path, **body, top_n=1)] == [1]

    def test_texts_or_documents(self, client: Client) -> None:
        for body in ({"query": "a"}, {"query": "a", "texts": ["b"], "documents": ["b"]}):
            assert client.post("/rerank", json=body).status_code == 400

    def test_openais_route_without_a_version(self, client: Client) -> None:
        assert ask(client, "/embeddings", input="a")["data"][0]["object"] == "embedding"


class TestInfinity:
    """`fastapi_schemas/pymodels.py`; LangChain's InfinityEmbeddings asks `/embeddings`."""

    def test_images(self, client: Client, engine: FakeEngine) -> None:
        ask(client, "/embeddings", model=EMBEDDER, input=["https://h/a.png"], modality="image")
        ask(client, "/embeddings", model=EMBEDDER, input="data:image/png;base64,AA==", modality="image")
        ask(client, "/embeddings", model=EMBEDDER, input=["https://h/a.png"], modality="text")
        seen = [(request.input[0].images, request.input[0].texts) for request in engine.requests]
        assert seen == [
            (("https://h/a.png",), ()),
            (("data:image/png;base64,AA==",), ()),
            ((), ("https://h/a.png",)),
        ]

    def test_audio(self, client: Client) -> None:
        answer = client.post("/embeddings", json={"input": "https://h/a.wav", "modality": "audio"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "modality")


class TestLlamaIndexJina:
    """`llama_index/embeddings/jinaai/base.py`."""

    def test_images(self, client: Client, engine: FakeEngine) -> None:
        items = [{"url": "https://h/a.png"}, {"bytes": "AAAA"}]
        answer = ask(client, E, input=items, model=EMBEDDER, encoding_type="float")
        assert [each["index"] for each in answer["data"]] == [0, 1]
        assert [item.images for item in engine.requests[0].input] == [("https://h/a.png",), ("AAAA",)]

    def test_bits(self, client: Client) -> None:
        answer = ask(client, E, input=["a"], model=EMBEDDER, encoding_type="ubinary")
        assert len(answer["data"][0]["embedding"]) == WIDTH // 8

    def test_errors(self, client: Client) -> None:
        assert "unknown field" in client.post(E, json={"input": [{"urll": "a"}]}).json()["detail"]


class TestCohereRecords:
    """`cohere/types/rerank_document.py`: a record of texts, as LangChain's CohereRerank passes it on."""

    RECORDS: ClassVar[list[dict[str, str]]] = [
        {"id": "1", "title": "bicycle", "text": "a red one"},
        {"id": "2", "title": "car", "text": "a red one"},
    ]

    @pytest.mark.parametrize(
        ("fields", "texts"),
        [
            (None, ("a red one", "a red one")),
            (["text"], ("a red one", "a red one")),
            (["title", "text"], ("bicycle\na red one", "car\na red one")),
        ],
    )
    def test_what_is_read(
        self, client: Client, engine: FakeEngine, fields: list[str] | None, texts: tuple[str, ...]
    ) -> None:
        ask(client, R, query="red bicycle", documents=self.RECORDS, rank_fields=fields, model=RERANKER)
        assert tuple(each.texts[0] for each in engine.requests[0].documents) == texts

    @pytest.mark.parametrize(
        ("document", "param"),
        [
            ({"text": "a", "imag": "x"}, "documents[1].imag"),
            ({"image": "x", "title": "a"}, "documents[1].title"),
            ({"title": "a"}, "documents[1].title"),
            ({"text": 1}, "documents[1].text"),
            ({"text": "a", "instruction": "x"}, "documents[1].instruction"),
        ],
    )
    def test_what_may_be_a_mistake_is_refused(
        self, client: Client, document: dict[str, Any], param: str
    ) -> None:
        answer = client.post(R, json={"query": "a", "documents": ["b", document]})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

    def test_fields_that_are_not_there(self, client: Client) -> None:
        answer = client.post(R, json={"query": "a", "documents": [{"text": "a"}], "rank_fields": ["title"]})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "documents[0]")


def test_vllm(client: Client) -> None:
    """`entrypoints/pooling/scoring/protocol.py`: `/v1/rerank` is `/rerank`."""
    options = {"request_id": "r", "use_activation": False, "mm_processor_kwargs": {}, "top_n": 0}
    answer = ask(client, R, query="red bicycle", documents=DOCUMENTS, **options)
    assert [each["relevance_score"] for each in answer["results"]] == [1, 0, -1]


def test_xinference(client: Client) -> None:
    """RAGFlow's `rag/llm/rerank_model.py` writes words for flags; `xinference_client` says `kwargs`."""
    flags = {"return_documents": "true", "return_len": "true", "kwargs": "{}"}
    answer = ask(client, R, model=RERANKER, query="red bicycle", documents=DOCUMENTS, **flags)
    assert answer["results"][0]["document"]["text"] == DOCUMENTS[1]
    assert answer["meta"]["tokens"]["input_tokens"] > 0


@pytest.mark.parametrize(("kind", "instruction"), [("query", tasks.QUERY), ("passage", None)])
def test_nvidia(client: Client, engine: FakeEngine, kind: str, instruction: str | None) -> None:
    """`langchain_nvidia_ai_endpoints/embeddings.py`."""
    body = {"input": ["a"], "model": EMBEDDER, "encoding_format": "float", "input_type": kind}
    ask(client, E, **body, truncate="NONE")
    assert (engine.requests[0].instruction, engine.requests[0].truncate) == (instruction, False)
    refused = client.post(E, json={**body, "truncate": "START"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "truncate")
