"""Other servers' names of what there is here, and their values that ask for nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from qvl.engine.dialects import openai, rerank
from qvl.engine.dialects.fields import decode
from qvl.engine.errors import BadRequest
from qvl.engine.protocol import Content, EmbedRequest, RerankRequest
from qvl.engine.response import dump

TEXT, IMAGE = {"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}


def embed(**fields: Any) -> EmbedRequest:
    return openai.parse(decode(openai.EmbeddingsBody, dump({"input": "a", **fields})))


def ranked(**fields: Any) -> RerankRequest:
    return rerank.parse(decode(rerank.RerankBody, dump({"query": "q", "documents": ["a"], **fields})))


def refused(param: str, ask: Any = embed, **fields: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        ask(**fields)
    assert caught.value.param == param
    return caught.value.message


class TestInstruct:
    """SGLang's, `entrypoints/openai/protocol.py`."""

    @pytest.mark.parametrize("ask", [embed, ranked])
    def test_it_is_the_instruction(self, ask: Any) -> None:
        assert ask(instruct="i") == ask(instruction="i") == ask(instruct="i", instruction="i")
        assert "contradict" in refused("instruct", ask, instruct="i", instruction="j")

    def test_it_wins_over_a_task(self) -> None:
        assert embed(instruct="i", input_type="query").instruction == "i"
        refused("instruction", instruct="i", input=[[1, 2]])


class TestParts:
    """SGLang's: a query, and a document, may be a list of OpenAI's parts."""

    def test_query_and_documents(self) -> None:
        request = ranked(query=[IMAGE, TEXT], documents=["b", [TEXT, IMAGE], [TEXT]])
        assert request.query == Content(images=("x",), texts=("a",), where="query")
        assert request.documents == (
            Content(texts=("b",), where="documents[0]"),
            Content(images=("x",), texts=("a",), where="documents[1]"),
            Content(texts=("a",), where="documents[2]"),
        )

    def test_a_list_of_documents_stays_one(self) -> None:
        assert [each.where for each in ranked(documents=[TEXT, IMAGE]).documents] == [
            "documents[0]",
            "documents[1]",
        ]

    def test_what_is_wrong_is_named(self) -> None:
        refused("query[1].txt", ranked, query=[TEXT, {"type": "text", "text": "a", "txt": "b"}])
        refused("documents[0][0].video", ranked, documents=[[{"type": "video", "video": []}]])
        refused("query", ranked, query=[])


def test_records() -> None:
    """Documents with an id or a title: by the same rule on every route."""
    records = [{"id": 7, "title": "t", "text": "a"}, {"title": "u", "text": "b"}]
    assert [each.texts for each in ranked(documents=records).documents] == [("a",), ("b",)]
    fields = ["title", "text"]
    request = ranked(documents=records, rank_fields=fields)
    assert [each.texts for each in request.documents] == [("t\na",), ("u\nb",)]
    refused("documents[0].imag", ranked, documents=[{"text": "a", "imag": "x"}])
    refused("rank_fields", ranked, rank_fields=["image"])


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
        for name in ("max_query_length", "max_tokens_per_query"):
            assert "never cut" in refused(name, ranked, **{name: 9})
        assert ranked(max_tokens_per_query=0) == ranked(max_chunk_per_doc=10, overlap_tokens=5) == ranked()

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


def test_frames_of_all_items() -> None:
    """The reference's `process`: `fps` and `max_frames` beside `query` and `documents`."""
    documents = [{"video": "v"}, {"video": "w", "fps": 4}, {"video": "x", "max_frames": 8}, "a"]
    plain = ranked(query={"video": "q"}, documents=documents)
    request = ranked(query={"video": "q"}, documents=documents, fps=2, max_frames=16)
    assert [(each.fps, each.max_frames) for each in (request.query, *request.documents)] == [
        *((2.0, 16), (2.0, 16), (4.0, 16), (2.0, 8), (2.0, 16))
    ]
    assert [(each.fps, each.max_frames) for each in plain.documents[:2]] == [(None, None), (4.0, None)]
    refused("fps", ranked, fps=0)
    refused("max_frames", ranked, max_frames=65)
