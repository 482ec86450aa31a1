"""DashScope's shapes: what is asked for, and what is answered."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import pytest

from qvl.engine.dialects import dashscope
from qvl.engine.dialects.fields import decode
from qvl.engine.errors import BadRequest
from qvl.engine.protocol import Content, EmbedRequest, EmbedResult, RerankRequest, RerankResult, Usage
from qvl.engine.response import dump, encode

ROWS = np.eye(2, 4, dtype=np.float32)
COST = Usage(text_tokens=3, visual_tokens=4)
CONTENTS = [
    {"text": "a"},
    {"image": "http://h/x.png"},
    {"video": "http://h/x.mp4"},
    {"multi_images": ["AAAA", "BBBB"]},
    {"text": "b", "image": "CCCC"},
]


def embedding(*contents: dict[str, Any], **parameters: Any) -> EmbedRequest:
    body = {"model": "m", "input": {"contents": contents}, "parameters": parameters}
    return dashscope.parse_embed(decode(dashscope.EmbedBody, dump(body)))


def reranking(asked: dict[str, Any], **parameters: Any) -> tuple[RerankRequest, Any]:
    """The request, and the answer where the second of three documents is the best."""
    body = decode(dashscope.RerankBody, dump({"model": "m", "input": asked, "parameters": parameters}))
    request = dashscope.parse_rerank(body)
    result = RerankResult(model="m", logits=np.array([-1, 2, 0], np.float32), usage=COST)
    return request, json.loads(dump(dashscope.render_rerank(body, request, result)))


def refused(*contents: dict[str, Any], **parameters: Any) -> str | None:
    with pytest.raises(BadRequest) as raised:
        embedding(*contents, **parameters)
    return raised.value.param


class TestEmbedding:
    def test_every_content_is_an_item(self) -> None:
        items = embedding(*CONTENTS).input
        assert items == (
            Content(texts=("a",), where="input.contents[0]"),
            Content(images=("http://h/x.png",), where="input.contents[1]"),
            Content(videos=("http://h/x.mp4",), where="input.contents[2]"),
            Content(images=("AAAA", "BBBB"), where="input.contents[3]"),
            Content(texts=("b",), images=("CCCC",), where="input.contents[4]"),
        )

    def test_fusion_makes_one_item_of_all(self) -> None:
        assert embedding(*CONTENTS, enable_fusion=True).input == (
            Content(
                videos=("http://h/x.mp4",),
                images=("http://h/x.png", "AAAA", "BBBB", "CCCC"),
                texts=("a", "b"),
                where="input.contents",
            ),
        )

    def test_parameters(self) -> None:
        options = {"dimension": 8, "output_type": "dense", "instruct": "Find it.", "auto_truncation": False}
        request = embedding(*CONTENTS, fps=0.5, max_video_frames=9, enable_fusion=False, **options)
        assert (request.model, request.dimensions, request.instruction) == ("m", 8, "Find it.")
        assert not request.truncate
        assert [(each.fps, each.max_frames) for each in request.input if isinstance(each, Content)] == [
            *[(None, None)] * 2,
            (0.5, 9),
            *[(None, None)] * 2,
        ]

    def test_parameters_may_be_left_out(self) -> None:
        for rest in ({}, {"parameters": None}, {"parameters": {}}):
            body = decode(dashscope.EmbedBody, dump({"input": {"contents": [{"text": "a"}]}, **rest}))
            request = dashscope.parse_embed(body)
            assert (request.instruction, request.dimensions, request.truncate) == (None, None, True)

    def test_answer(self) -> None:
        body = decode(dashscope.EmbedBody, dump({"input": {"contents": [{"text": "a"}] * 2}}))
        result = EmbedResult(model="m", vectors=ROWS, usage=COST)
        answer = json.loads(dump(dashscope.render_embed(body, result, partial(encode, ROWS))))
        assert answer["output"]["embeddings"] == [
            {"index": 0, "embedding": [1, 0, 0, 0], "type": "vl"},
            {"index": 1, "embedding": [0, 1, 0, 0], "type": "vl"},
        ]
        assert answer["usage"] == {
            "input_tokens": 7,
            "image_tokens": 4,
            "input_tokens_details": {"text_tokens": 3, "image_tokens": 4},
            "total_tokens": 7,
        }
        assert answer["request_id"]

    def test_what_is_refused(self) -> None:
        assert refused({"text": "a"}, res_level=1) == "parameters.res_level"
        assert refused({"text": "a"}, output_type="sparse") == "parameters.output_type"
        assert refused({"text": "a"}, dimensions=8) == "parameters.dimensions"
        assert refused({"text": "a"}, {"text": "b", "factor": 2}) == "input.contents[1].factor"
        assert refused({"audio": "http://h/x.wav"}) == "input.contents[0].audio"
        assert refused() == "input.contents"
        assert embedding({"text": "a", "factor": 1}).input == (
            Content(texts=("a",), where="input.contents[0]"),
        )


class TestRerank:
    ASKED = {"query": {"text": "q"}, "documents": ["a", {"text": "b"}, {"video": "http://h/x.mp4"}]}  # noqa: RUF012

    def test_request(self) -> None:
        request, _ = reranking(self.ASKED, instruct="Match it.", fps=2)
        assert request == RerankRequest(
            query=Content(texts=("q",), where="input.query"),
            documents=(
                Content(texts=("a",), where="input.documents[0]"),
                Content(texts=("b",), where="input.documents[1]"),
                Content(videos=("http://h/x.mp4",), fps=2, where="input.documents[2]"),
            ),
            model="m",
            instruction="Match it.",
        )

    def test_answer(self) -> None:
        _, answer = reranking({**self.ASKED, "query": "q"})
        results = answer["output"]["results"]
        assert [list(each) for each in results] == [["index", "relevance_score"]] * 3
        assert [each["index"] for each in results] == [1, 2, 0]
        assert results[1]["relevance_score"] == 0.5
        assert answer["usage"]["total_tokens"] == 7

    def test_documents_and_the_best(self) -> None:
        _, answer = reranking(self.ASKED, top_n=1, return_documents=True)
        (best,) = answer["output"]["results"]
        assert (best["index"], best["document"]["text"]) == (1, "b")

    def test_what_is_refused(self) -> None:
        for parameters, param in (
            ({"res_level": 1}, "parameters.res_level"),
            ({"top_n": 0}, "parameters.top_n"),
        ):
            with pytest.raises(BadRequest) as raised:
                reranking(self.ASKED, **parameters)
            assert raised.value.param == param
