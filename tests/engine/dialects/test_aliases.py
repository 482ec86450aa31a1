"""Other servers' names of what there is here, and their values that ask for nothing else."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from qvl.engine.dialects import cohere, openai, rerank, vllm
from qvl.engine.dialects.fields import Body, decode
from qvl.engine.errors import BadRequest
from qvl.engine.protocol import Content, EmbedRequest, RerankRequest
from qvl.engine.response import dump

RERANKS: list[tuple[type[Body], Any]] = [
    (rerank.RerankBody, rerank.parse),
    (cohere.RerankBody, cohere.parse_rerank),
    (vllm.RerankBody, vllm.parse_rerank),
]
TEXT, IMAGE = {"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}


def embed(**fields: Any) -> EmbedRequest:
    return openai.parse(decode(openai.EmbeddingsBody, dump({"input": "a", **fields})))


def ranked(dialect: tuple[type[Body], Any] = RERANKS[0], **fields: Any) -> RerankRequest:
    body, parse = dialect
    request: RerankRequest = parse(decode(body, dump({"query": "q", "documents": ["a"], **fields})))
    return request


def refused(param: str, ask: Any = embed, **fields: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        ask(**fields)
    assert caught.value.param == param
    return caught.value.message


class TestInstruct:
    """SGLang's, `entrypoints/openai/protocol.py`."""

    @pytest.mark.parametrize("ask", [embed, ranked, partial(ranked, RERANKS[2])])
    def test_it_is_the_instruction(self, ask: Any) -> None:
        assert ask(instruct="i") == ask(instruction="i") == ask(instruct="i", instruction="i")
        assert "contradict" in refused("instruct", ask, instruct="i", instruction="j")

    def test_it_wins_over_a_task(self) -> None:
        assert embed(instruct="i", input_type="query").instruction == "i"
        refused("instruction", instruct="i", input=[[1, 2]])


@pytest.mark.parametrize("dialect", RERANKS)
class TestParts:
    """SGLang's: a query, and a document, may be a list of OpenAI's parts."""

    def test_query_and_documents(self, dialect: Any) -> None:
        request = ranked(dialect, query=[IMAGE, TEXT], documents=["b", [TEXT, IMAGE], [TEXT]])
        assert request.query == Content(images=("x",), texts=("a",), where="query")
        assert request.documents == (
            Content(texts=("b",), where="documents[0]"),
            Content(images=("x",), texts=("a",), where="documents[1]"),
            Content(texts=("a",), where="documents[2]"),
        )

    def test_a_list_of_documents_stays_one(self, dialect: Any) -> None:
        assert [each.where for each in ranked(dialect, documents=[TEXT, IMAGE]).documents] == [
            "documents[0]",
            "documents[1]",
        ]

    def test_what_is_wrong_is_named(self, dialect: Any) -> None:
        ask = partial(ranked, dialect)
        refused("query[1].txt", ask, query=[TEXT, {"type": "text", "text": "a", "txt": "b"}])
        refused("documents[0][0].video", ask, documents=[[{"type": "video", "video": []}]])
        refused("query", ask, query=[])


@pytest.mark.parametrize("dialect", RERANKS)
def test_records(dialect: Any) -> None:
    """Documents with an id or a title: by the same rule on every route."""
    records = [{"id": 7, "title": "t", "text": "a"}, {"title": "u", "text": "b"}]
    assert [each.texts for each in ranked(dialect, documents=records).documents] == [("a",), ("b",)]
    fields = ["title", "text"]
    request = ranked(dialect, documents=records, rank_fields=fields)
    assert [each.texts for each in request.documents] == [("t\na",), ("u\nb",)]
    refused("documents[0].imag", partial(ranked, dialect), documents=[{"text": "a", "imag": "x"}])
    refused("rank_fields", partial(ranked, dialect), rank_fields=["image"])


class TestAzure:
    """`azure-ai-inference`: `EmbeddingInputType` and `EmbeddingEncodingFormat`."""

    def test_texts_that_are_neither(self) -> None:
        assert embed(input_type="text") == embed()

    @pytest.mark.parametrize("form", ["int8", "uint8", "binary", "ubinary"])
    def test_number_types(self, form: str) -> None:
        def kind(**fields: Any) -> Any:
            return openai.kind(decode(openai.EmbeddingsBody, dump({"input": "a", **fields})))

        assert kind(encoding_format=form) == kind(embed_dtype=form)
        assert kind(encoding_format=form, output_dtype=form) == kind(embed_dtype=form)
        assert "contradict" in refused("encoding_format", encoding_format=form, embed_dtype="float16")
        assert "contradict" in refused("encoding_format", encoding_format=form, embedding_type="base64")

    def test_vllms_bytes_are_another_answer(self) -> None:
        assert "accepted: base64" in refused("encoding_format", encoding_format="bytes")


class TestJina:
    def test_length_of_a_document(self) -> None:
        assert ranked(max_doc_length=9) == ranked(max_tokens_per_doc=9)
        assert "contradict" in refused("max_doc_length", ranked, max_doc_length=9, max_tokens_per_doc=8)
        assert "never cut" in refused("max_query_length", ranked, max_query_length=9)

    def test_vectors_of_a_reranker(self) -> None:
        assert ranked(return_embeddings=False) == ranked()
        assert "/v1/embeddings" in refused("return_embeddings", ranked, return_embeddings=True)

    def test_a_pdf_is_an_image(self) -> None:
        assert embed(input=[{"pdf": "https://h/a.pdf#page=2"}]).input[0].images == ("https://h/a.pdf#page=2",)  # type: ignore[union-attr]

    def test_several_types(self) -> None:
        assert "embedding_types" in refused("embedding_type", embedding_type=["float", "int8"])
        assert embed(embedding_type=["float", "float"]) == embed(embedding_type=[]) == embed()


class TestModality:
    """NVIDIA's: one for all, or one for each."""

    @pytest.mark.parametrize(
        ("modality", "images"),
        [("text", [0, 0]), (["image"], [1, 1]), (["text", "image"], [0, 1]), (["image", "text"], [1, 0])],
    )
    def test_what_the_strings_are(self, modality: Any, images: list[int]) -> None:
        request = embed(input=["a", "b"], modality=modality)
        assert [len(each.images) for each in request.input] == images  # type: ignore[union-attr]

    def test_items_say_it_themselves(self) -> None:
        request = embed(input=[{"text": "a"}, [1, 2]], modality=["image", "image"])
        assert request == embed(input=[{"text": "a"}, [1, 2]])

    def test_what_is_refused(self) -> None:
        assert "give one, or one for each" in refused("modality", input=["a", "b"], modality=["text"] * 3)
        assert '{"text": …, "image": …}' in refused(
            "modality", input=["a", "b"], modality=["text", "text_image"]
        )
        refused("modality", modality="audio")
        refused("modality", modality=[])


@pytest.mark.parametrize("dialect", [RERANKS[0], RERANKS[2]])
def test_frames_of_all_items(dialect: Any) -> None:
    """The reference's `process`: `fps` and `max_frames` beside `query` and `documents`."""
    documents = [{"video": "v"}, {"video": "w", "fps": 4}, {"video": "x", "max_frames": 8}, "a"]
    plain = ranked(dialect, query={"video": "q"}, documents=documents)
    request = ranked(dialect, query={"video": "q"}, documents=documents, fps=2, max_frames=16)
    assert [(each.fps, each.max_frames) for each in (request.query, *request.documents)] == [
        *((2.0, 16), (2.0, 16), (4.0, 16), (2.0, 8), (2.0, 16))
    ]
    assert [(each.fps, each.max_frames) for each in plain.documents[:2]] == [(None, None), (4.0, None)]
    refused("fps", partial(ranked, dialect), fps=0)
    refused("max_frames", partial(ranked, dialect), max_frames=65)
