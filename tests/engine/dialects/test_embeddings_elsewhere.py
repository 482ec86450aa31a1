"""Cohere's and Voyage's embeddings."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from qvl.engine.dialects import cohere, tasks, voyage
from qvl.engine.dialects.fields import decode
from qvl.engine.protocol import Content, EmbedRequest, EmbedResult, Usage
from qvl.engine.response import convert, dump, encode

ROWS = np.eye(2, 16, dtype=np.float32)
COST = Usage(text_tokens=3, visual_tokens=4, images=2, image_pixels=50, video_pixels=60)
RESULT = EmbedResult(model="m", vectors=ROWS, usage=COST)


def cohere_request(**fields: Any) -> EmbedRequest:
    return cohere.parse_embed(decode(cohere.EmbedBody, dump(fields)))


class TestCohere:
    def test_texts(self) -> None:
        request = cohere_request(
            model="m",
            texts=["a"],
            input_type="search_query",
            output_dimension=8,
            max_tokens=5,
            truncate="NONE",
        )
        assert request == EmbedRequest(
            input=(Content(texts=("a",), where="texts[0]"),),
            model="m",
            instruction=tasks.QUERY,
            dimensions=8,
            truncate=False,
            max_tokens=5,
        )

    def test_images(self) -> None:
        request = cohere_request(images=["x", "y"], input_type="image")
        assert request.input[1] == Content(images=("y",), where="images[1]")
        assert request.instruction is None

    def test_inputs(self) -> None:
        parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]
        request = cohere_request(inputs=[{"content": parts}])
        assert request.input == (Content(images=("x",), texts=("a",), where="inputs[0]"),)

    def test_every_type(self) -> None:
        names: list[Any] = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
        body = decode(cohere.EmbedBody, dump({"texts": ["a", "b"], "embedding_types": names}))
        answer = cohere.render_embed(body, RESULT, partial(encode, ROWS))
        assert list(answer["embeddings"]) == names
        for name in ("int8", "uint8", "binary", "ubinary"):
            np.testing.assert_array_equal(answer["embeddings"][name], convert(ROWS, name))
        assert answer["texts"] == ["a", "b"]
        assert answer["meta"]["billed_units"] == {"input_tokens": 3, "image_tokens": 4, "images": 2}

    def test_default_type(self) -> None:
        body = decode(cohere.EmbedBody, dump({"texts": ["a", "b"]}))
        assert list(cohere.render_embed(body, RESULT, partial(encode, ROWS))["embeddings"]) == ["float"]


@pytest.mark.parametrize(("encoding", "first"), [({}, 1.0), ({"output_encoding": "base64"}, "A")])
def test_voyage(encoding: dict[str, str], first: object) -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": "x"},
        {"type": "image_base64", "image_base64": "y"},
        {"type": "video_url", "video_url": "z"},
    ]
    fields = {"inputs": [{"content": parts}], "input_type": "document", "truncation": False, **encoding}
    body = decode(voyage.EmbedBody, dump(fields))
    request = voyage.parse(body)
    assert request.input == (Content(videos=("z",), images=("x", "y"), texts=("a",), where="inputs[0]"),)
    assert (request.truncate, request.instruction) == (False, None)
    answer = voyage.render(body, RESULT, partial(encode, ROWS))
    assert answer["usage"] == {"text_tokens": 3, "image_pixels": 50, "video_pixels": 60, "total_tokens": 7}
    assert answer["data"][0]["embedding"][0] == first
