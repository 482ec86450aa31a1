"""Routes of other hosts, with the bodies that their clients send, and what those read in the answers.

Each test names the client and the file of its source that the body was read from.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from qvl.engine.dialects import tasks
from qvl.engine.protocol import Content
from tests.engine.http.bad_foreign import DE, DR
from tests.engine.http.conftest import Client
from tests.engine.http.fake import EMBEDDER, RERANKER, WIDTH, FakeEngine
from tests.engine.http.test_foreign_bodies import DOCUMENTS, ask


class TestDashScope:
    """`dashscope/embeddings/multimodal_embedding.py`, `rerank/text_rerank.py` and `common/utils.py`."""

    def test_embeddings(self, client: Client, engine: FakeEngine) -> None:
        contents = [{"text": "a"}, {"image": "https://h/a.png"}, {"video": "https://h/a.mp4"}]
        answer = ask(client, DE, model=EMBEDDER, parameters={}, input={"contents": contents})
        rows = answer["output"]["embeddings"]
        assert [each["index"] for each in rows] == [0, 1, 2]
        assert np.shape([each["embedding"] for each in rows]) == (3, WIDTH)
        assert answer["usage"]["total_tokens"] > 0
        assert len(engine.requests[0].input) == 3

    def test_fusion(self, client: Client, engine: FakeEngine) -> None:
        """LiteLLM's `llms/dashscope/embed/transformation.py` and OpenViking's `dashscope_embedders.py`."""
        body = {"contents": [{"text": "a"}, {"image": "https://h/a.png"}]}
        options = {"dimension": 16, "enable_fusion": True}
        (row,) = ask(client, DE, model=EMBEDDER, input=body, parameters=options)["output"]["embeddings"]
        assert len(row["embedding"]) == 16
        item = engine.requests[0].input[0]
        assert isinstance(item, Content)
        assert (item.texts, item.images) == (("a",), ("https://h/a.png",))

    def test_rerank(self, client: Client) -> None:
        """Dify's `models/tongyi/models/rerank/rerank.py` reads the texts."""
        asked = {"query": "red bicycle", "documents": DOCUMENTS}
        options = {"return_documents": True, "top_n": 2}
        answer = ask(client, DR, model=RERANKER, input=asked, parameters=options)
        results = answer["output"]["results"]
        assert [each["index"] for each in results] == [1, 2]
        assert [each["document"]["text"] for each in results] == [DOCUMENTS[1], DOCUMENTS[2]]
        assert results[0]["relevance_score"] > results[1]["relevance_score"]

    @pytest.mark.parametrize("text", ["!busy", "!bad"])
    def test_errors(self, client: Client, text: str) -> None:
        """Its asynchronous client fails without a `code`."""
        found: Any = client.post(DE, json={"input": {"contents": [{"text": text}]}}).json()
        assert (found["code"], found["message"]) == (found["error"]["code"], found["error"]["message"])


class TestSimilarity:
    """TEI's `router/src/http/types.rs`; the Hub's client posts the same body to `/`."""

    SENTENCES: ClassVar[dict[str, Any]] = {"source_sentence": "a", "sentences": ["a", "b"]}

    @pytest.mark.parametrize("path", ["/similarity", "/", "/embed"])
    def test_cosines(self, client: Client, path: str) -> None:
        same, other = ask(client, path, inputs=self.SENTENCES, parameters={})
        a, b = ask(client, "/embed", inputs=["a", "b"])
        assert same == pytest.approx(1, abs=1e-6)
        assert other == pytest.approx(np.dot(a, b), abs=1e-6)

    def test_parameters(self, client: Client, engine: FakeEngine) -> None:
        options = {"truncate": False, "truncation_direction": "Right", "prompt_name": "query"}
        ask(client, "/similarity", inputs=self.SENTENCES, parameters=options)
        ask(client, "/", inputs=self.SENTENCES, **options)
        assert engine.requests[0] == engine.requests[1]
        assert (engine.requests[0].instruction, engine.requests[0].truncate) == (tasks.QUERY, False)

    def test_an_image(self, client: Client, engine: FakeEngine) -> None:
        """As everywhere, a string that is one's `data:` URL is the image."""
        ask(client, "/similarity", inputs={**self.SENTENCES, "source_sentence": "data:image/png;base64,AA=="})
        source = engine.requests[0].input[0]
        assert isinstance(source, Content)
        assert source.images


def test_nvidia(client: Client, engine: FakeEngine) -> None:
    """`langchain_nvidia_ai_endpoints/reranking.py` and `llama_index/postprocessor/nvidia_rerank/base.py`."""
    body = {"model": RERANKER, "query": {"text": "red bicycle"}, "truncate": "NONE"}
    answer = ask(client, "/v1/ranking", **body, passages=[{"text": text} for text in DOCUMENTS])
    assert answer["rankings"] == [
        {"index": 1, "logit": 1.0},
        {"index": 2, "logit": 0.0},
        {"index": 0, "logit": -1.0},
    ]
    assert answer["usage"]["total_tokens"] > 0
    assert not engine.requests[0].truncate


@pytest.mark.parametrize("most", ["top_n", "top_k"])
def test_the_route_of_nvidias_host(client: Client, most: str) -> None:
    """Weaviate's `modules/reranker-nvidia/clients/ranker.go`; RAGFlow says `top_n`, LiteLLM `top_k`."""
    passages = [{"text": text} for text in DOCUMENTS]
    body = {"query": {"text": "red bicycle"}, "passages": passages, most: 1}
    answer = ask(client, "/v1/retrieval/nvidia/reranking", model=RERANKER, **body)
    assert [each["index"] for each in answer["rankings"]] == [1]


@pytest.mark.parametrize("path", ["/v1/reranks", "/compatible-api/v1/reranks"])
def test_dashscopes_flat_rerank(client: Client, path: str) -> None:
    """LiteLLM's `llms/dashscope/rerank/transformation.py` and WeKnora's `aliyun_reranker.go`."""
    answer = ask(client, path, model=RERANKER, query="red bicycle", documents=DOCUMENTS, top_n=1)
    assert [(each["index"], each["relevance_score"] > 0.5) for each in answer["results"]] == [(1, True)]


def test_azure(client: Client, engine: FakeEngine) -> None:
    """`azure/ai/inference/_patch.py`: ImageEmbeddingsClient, whose answer is OpenAI's."""
    items = [{"image": "data:image/png;base64,AA==", "text": "a"}, {"image": "data:image/png;base64,AA=="}]
    options = {"dimensions": 16, "encoding_format": "float", "input_type": "document", "model": EMBEDDER}
    answer = ask(client, "/images/embeddings?api-version=2024-05-01-preview", input=items, **options)
    assert [(each["index"], len(each["embedding"])) for each in answer["data"]] == [(0, 16), (1, 16)]
    assert answer["usage"]["prompt_tokens"] > 0
    first = engine.requests[0].input[0]
    assert isinstance(first, Content)
    assert (first.texts, len(first.images)) == (("a",), 1)


class TestTokenize:
    """TEI's `router/src/http/types.rs`, as Dify's TEI plug-in reads it before each embedding, and vLLM's
    `entrypoints/serve/tokenize/protocol.py`."""

    @pytest.mark.parametrize("inputs", ["a  red", ["a  red"]])
    def test_texts(self, client: Client, inputs: Any) -> None:
        assert ask(client, "/tokenize", inputs=inputs) == [
            [
                {"id": 1, "text": "a", "special": False, "start": 0, "stop": 1},
                {"id": 3, "text": "red", "special": False, "start": 3, "stop": 6},
                {"id": 0, "text": "<end>", "special": True, "start": None, "stop": None},
            ]
        ]
        (bare,) = ask(client, "/tokenize", inputs=inputs, add_special_tokens=False)
        assert [each["text"] for each in bare] == ["a", "red"]

    def test_a_prompt(self, client: Client) -> None:
        answer = ask(client, "/tokenize", model=EMBEDDER, prompt="a red")
        assert answer == {"count": 3, "max_model_len": 8192, "tokens": [1, 3, 0], "token_strs": None}
        options = {"add_special_tokens": False, "return_token_strs": True}
        assert ask(client, "/tokenize", prompt="a red", **options)["token_strs"] == ["a", "red"]

    def test_a_conversation(self, client: Client, engine: FakeEngine) -> None:
        talk = [{"role": "system", "content": "Find it."}, {"role": "user", "content": "a red"}]
        assert ask(client, "/tokenize", messages=talk, add_generation_prompt=True)["count"] > 0
        item = engine.requests[0].input[0]
        assert isinstance(item, Content)
        assert (item.instruction, item.texts) == ("Find it.", ("a red",))
