"""Clients that people already have, unmodified, against the stand-in and against the real engine."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from dataclasses import dataclass

import cohere
import httpx
import numpy as np
import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from langchain_openai import OpenAIEmbeddings

from tests.engine.http.bad_requests import jpeg, url
from tests.engine.http.conftest import on_a_port
from tests.engine.http.fake import EMBEDDER, RERANKER, FakeEngine

TEXTS = ["a red bicycle", "deux vélos rouges", "一辆红色的自行车"]
DOCUMENTS = ["a car", "a red bicycle", "a bicycle that is red"]
IMAGE = url("image/jpeg", jpeg())
KEY = "unused"


@dataclass(frozen=True)
class Endpoint:
    url: str
    embedder: str
    reranker: str


@pytest.fixture(scope="module", params=["fake", pytest.param("engine", marks=pytest.mark.engine)])
def at(request: pytest.FixtureRequest) -> Iterator[Endpoint]:
    if request.param == "engine":
        server = request.getfixturevalue("server")
        yield Endpoint(server.url, server.embedder, server.reranker)
        return
    with on_a_port(FakeEngine()) as address:
        yield Endpoint(address, EMBEDDER, RERANKER)


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """Handed to the SDKs that have no way to close their own."""
    with httpx.Client(timeout=120) as client:
        yield client


def lengths(vectors: object) -> np.ndarray:
    return np.linalg.norm(np.asarray(vectors, np.float64), axis=1)


class TestOpenAI:
    def test_embeddings(self, at: Endpoint) -> None:
        """The SDK asks for base64 unless told otherwise."""
        with openai.OpenAI(base_url=f"{at.url}/v1", api_key=KEY) as client:
            coded = client.embeddings.create(model=at.embedder, input=TEXTS)
            listed = client.embeddings.create(model=at.embedder, input=TEXTS, encoding_format="float")
        assert [each.index for each in coded.data] == [0, 1, 2]
        np.testing.assert_allclose(
            [each.embedding for each in coded.data], [each.embedding for each in listed.data], atol=1e-6
        )
        np.testing.assert_allclose(lengths([each.embedding for each in coded.data]), 1, atol=1e-5)
        assert coded.model == at.embedder
        assert coded.usage.prompt_tokens == coded.usage.total_tokens > 0

    def test_dimensions(self, at: Endpoint) -> None:
        with openai.OpenAI(base_url=f"{at.url}/v1", api_key=KEY) as client:
            (full,) = client.embeddings.create(model=at.embedder, input="a").data
            (cut,) = client.embeddings.create(model=at.embedder, input="a", dimensions=8).data
        head = np.array(full.embedding[:8])
        np.testing.assert_allclose(cut.embedding, head / np.linalg.norm(head), atol=1e-5)

    def test_our_fields_by_extra_body(self, at: Endpoint) -> None:
        with openai.OpenAI(base_url=f"{at.url}/v1", api_key=KEY) as client:
            extra = {"instruction": "Find the answer."}
            (plain,) = client.embeddings.create(model=at.embedder, input="a").data
            (told,) = client.embeddings.create(model=at.embedder, input="a", extra_body=extra).data
        assert len(plain.embedding) == len(told.embedding)
        assert not np.allclose(plain.embedding, told.embedding, atol=1e-3)

    def test_what_ragflow_adds(self, at: Endpoint) -> None:
        """Its `VLLM` and `OpenAI-API-Compatible` providers, `rag/llm/embedding_model.py`."""
        with openai.OpenAI(base_url=f"{at.url}/v1", api_key=KEY) as client:
            answer = client.embeddings.create(
                model=at.embedder, input=["a"], encoding_format="float", extra_body={"drop_params": True}
            )
        assert answer.usage.total_tokens > 0

    def test_async(self, at: Endpoint) -> None:
        async def ask() -> tuple[list[list[float]], list[list[float]]]:
            async with openai.AsyncOpenAI(base_url=f"{at.url}/v1", api_key=KEY) as client:
                asked = (client.embeddings.create(model=at.embedder, input=text) for text in TEXTS)
                single = [each.data[0].embedding for each in await asyncio.gather(*asked)]
                together = await client.embeddings.create(model=at.embedder, input=list(TEXTS))
                return single, [each.embedding for each in together.data]

        np.testing.assert_allclose(*asyncio.run(ask()), atol=1e-5)

    def test_models(self, at: Endpoint) -> None:
        with openai.OpenAI(base_url=f"{at.url}/v1", api_key=KEY) as client:
            assert {each.id for each in client.models.list()} == {at.embedder, at.reranker}
            assert client.models.retrieve(at.reranker).id == at.reranker
            with pytest.raises(openai.NotFoundError, match="no model"):
                client.models.retrieve("Qwen/another")

    def test_errors(self, at: Endpoint) -> None:
        with openai.OpenAI(base_url=f"{at.url}/v1", api_key=KEY, max_retries=0) as client:
            with pytest.raises(openai.NotFoundError) as missing:
                client.embeddings.create(model="text-embedding-3-small", input="a")
            with pytest.raises(openai.BadRequestError) as bad:
                client.embeddings.create(model=at.embedder, input=[])
        assert missing.value.code == "model_not_found"
        assert (bad.value.param, bad.value.type) == ("input", "invalid_request_error")


class TestCohere:
    def test_embed(self, at: Endpoint, http: httpx.Client) -> None:
        client = cohere.ClientV2(base_url=at.url, api_key=KEY, httpx_client=http)
        answer = client.embed(
            model=at.embedder,
            texts=TEXTS,
            input_type="search_document",
            embedding_types=["float", "int8", "ubinary", "base64"],
            output_dimension=16,
        )
        floats = np.array(answer.embeddings.float_)
        assert floats.shape == (3, 16)
        np.testing.assert_allclose(lengths(floats), 1, atol=1e-5)
        assert np.array(answer.embeddings.int8).shape == (3, 16)
        assert np.array(answer.embeddings.ubinary).shape == (3, 2)
        coded = np.frombuffer(base64.b64decode(answer.embeddings.base64[0]), "<f4")
        np.testing.assert_allclose(coded, floats[0], atol=1e-6)
        assert answer.texts == TEXTS
        assert answer.meta.billed_units.input_tokens > 0

    def test_embed_images_and_mixtures(self, at: Endpoint, http: httpx.Client) -> None:
        client = cohere.ClientV2(base_url=at.url, api_key=KEY, httpx_client=http)
        images = client.embed(
            model=at.embedder, images=[IMAGE], input_type="image", embedding_types=["float"]
        )
        parts = [{"type": "text", "text": "a ramp"}, {"type": "image_url", "image_url": {"url": IMAGE}}]
        mixed = client.embed(
            model=at.embedder,
            inputs=[{"content": parts}],
            input_type="search_document",
            embedding_types=["float"],
        )
        image, mixture = images.embeddings.float_, mixed.embeddings.float_
        assert np.shape(image) == np.shape(mixture)
        assert not np.allclose(image, mixture, atol=1e-3)

    # What the SDK does with pydantic when it joins answers.
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_embed_of_the_first_version(self, at: Endpoint, http: httpx.Client) -> None:
        """As LangChain's and LlamaIndex's CohereEmbeddings ask; it sends 96 texts at a time."""
        client = cohere.Client(base_url=at.url, api_key=KEY, httpx_client=http)
        options = {"model": at.embedder, "input_type": "search_query", "truncate": "END"}
        floats = client.embed(texts=[str(i) for i in range(100)], **options)
        assert (floats.response_type, np.shape(floats.embeddings)[0]) == ("embeddings_floats", 100)
        np.testing.assert_allclose(lengths(floats.embeddings), 1, atol=1e-5)
        assert floats.texts[99] == "99"
        typed = client.embed(texts=["0"], embedding_types=["float", "int8"], **options)
        np.testing.assert_allclose(typed.embeddings.float_[0], floats.embeddings[0], atol=1e-5)
        assert len(typed.embeddings.int8[0]) == len(typed.embeddings.float_[0])
        assert typed.meta.api_version.version == "1"
        (image,) = client.embed(images=[IMAGE], model=at.embedder, input_type="image").embeddings
        assert len(image) == len(floats.embeddings[0])

    def test_rerank(self, at: Endpoint, http: httpx.Client) -> None:
        client = cohere.ClientV2(base_url=at.url, api_key=KEY, httpx_client=http)
        answer = client.rerank(model=at.reranker, query="red bicycle", documents=DOCUMENTS, top_n=2)
        scores = [each.relevance_score for each in answer.results]
        assert len(scores) == 2
        assert scores == sorted(scores, reverse=True)

    def test_rerank_of_the_first_version(self, at: Endpoint, http: httpx.Client) -> None:
        client = cohere.Client(base_url=at.url, api_key=KEY, httpx_client=http)
        answer = client.rerank(
            model=at.reranker, query="red bicycle", documents=DOCUMENTS, return_documents=True
        )
        assert sorted(each.index for each in answer.results) == [0, 1, 2]
        assert all(each.document.text == DOCUMENTS[each.index] for each in answer.results)

    def test_errors(self, at: Endpoint, http: httpx.Client) -> None:
        client = cohere.ClientV2(base_url=at.url, api_key=KEY, httpx_client=http)
        with pytest.raises(cohere.NotFoundError, match="model_not_found"):
            client.rerank(model="rerank-v4.0", query="a", documents=["b"])


class TestHuggingFace:
    """TEI's client, on which LangChain's HuggingFaceEndpointEmbeddings and Haystack's API embedders stand."""

    def test_embed(self, at: Endpoint) -> None:
        with InferenceClient(at.url, token=KEY) as client:
            vectors = client.feature_extraction(TEXTS)
            one = client.feature_extraction(TEXTS[0], normalize=True, truncate=True, prompt_name="document")
        assert vectors.shape[0] == 3
        np.testing.assert_allclose(lengths(vectors), 1, atol=1e-5)
        np.testing.assert_allclose(one, vectors[:1], atol=1e-5)

    def test_similarity(self, at: Endpoint) -> None:
        with InferenceClient(at.url, token=KEY) as client:
            cosines = client.sentence_similarity(TEXTS[0], TEXTS)
            vectors = client.feature_extraction(TEXTS)
        np.testing.assert_allclose(cosines, vectors @ vectors[0], atol=1e-5)

    def test_errors(self, at: Endpoint) -> None:
        refused = pytest.raises(HfHubHTTPError, match="vectors always have length 1")
        with InferenceClient(at.url, token=KEY) as client, refused:
            client.feature_extraction("a", normalize=False)


def test_langchain(at: Endpoint, http: httpx.Client) -> None:
    """Without `check_embedding_ctx_length=False` it would send ids of OpenAI's tokenizer."""
    embeddings = OpenAIEmbeddings(
        model=at.embedder,
        base_url=f"{at.url}/v1",
        api_key=KEY,
        http_client=http,
        check_embedding_ctx_length=False,
    )
    documents = embeddings.embed_documents(TEXTS)
    query = embeddings.embed_query(TEXTS[0])
    np.testing.assert_allclose(query, documents[0], atol=1e-5)
    np.testing.assert_allclose(lengths(documents), 1, atol=1e-5)
