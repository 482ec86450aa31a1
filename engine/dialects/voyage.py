"""Voyage's `POST /v1/multimodalembeddings`."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

import msgspec

from qvl.engine.dialects import items, openai, tasks, vectors
from qvl.engine.dialects.fields import Body, Count
from qvl.engine.dialects.items import Item
from qvl.engine.protocol import EmbedRequest, EmbedResult


class EmbedBody(Body):
    inputs: Annotated[list[Item], msgspec.Meta(min_length=1)]
    model: str | None = None
    input_type: tasks.Task | None = None
    truncation: bool | None = None
    output_dimension: Count | None = None
    output_dtype: vectors.Spelling | None = None
    output_encoding: Literal["base64"] | None = None
    encoding_format: Literal["base64"] | None = None


class Usage(TypedDict):
    text_tokens: int
    image_pixels: int
    video_pixels: int
    total_tokens: int


class EmbedResponse(TypedDict):
    object: Literal["list"]
    data: list[openai.Embedding]
    model: str
    usage: Usage


def parse(body: EmbedBody) -> EmbedRequest:
    return EmbedRequest(
        input=items.contents(body.inputs, "inputs"),
        model=body.model,
        instruction=tasks.instruction(None, body.input_type),
        dimensions=body.output_dimension,
        truncate=body.truncation is not False,
    )


def render(body: EmbedBody, result: EmbedResult, encode: vectors.Encode) -> EmbedResponse:
    kind = vectors.kind(body.output_encoding or body.encoding_format, {"output_dtype": body.output_dtype})
    cost = result.usage
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(encode(kind))
        ],
        "model": result.model,
        "usage": {
            "text_tokens": cost.text_tokens,
            "image_pixels": cost.image_pixels,
            "video_pixels": cost.video_pixels,
            "total_tokens": cost.total_tokens,
        },
    }
