"""Voyage's `POST /v1/multimodalembeddings`, and its answer of `POST /v1/rerank`.

`input_type` is an instruction, as `tasks` has it; without one a vector is a document's. Voyage's texts go to
`/v1/embeddings`, whose answer they share with OpenAI (`openai.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NotRequired, TypedDict

import msgspec

from qvl.engine.dialects import items, openai, ranking, tasks, vectors
from qvl.engine.dialects.fields import Body, Count
from qvl.engine.dialects.items import Item
from qvl.engine.protocol import Content, EmbedRequest, EmbedResult, RerankResult


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
        instruction=tasks.instruction(None, input_type=body.input_type),
        documents=tasks.documents(input_type=body.input_type),
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


class Ranked(TypedDict):
    index: int
    relevance_score: NotRequired[float]
    document: NotRequired[str]
    error: NotRequired[dict[str, str | None]]


class RerankUsage(TypedDict):
    total_tokens: int


class RerankResponse(TypedDict):
    object: Literal["list"]
    data: list[Ranked]
    model: str
    usage: RerankUsage


def render_rerank(
    result: RerankResult, *, top_k: int | None, raw: bool, echo: Sequence[Content] | None
) -> RerankResponse:
    """`echo`: the documents, of which the texts are shown."""
    data: list[Ranked] = []
    for entry in ranking.ranked(result, top_n=top_k, raw=raw):
        shown: Ranked = {"index": entry["index"], "relevance_score": entry["relevance_score"]}
        if echo is not None:
            shown["document"] = "".join(echo[entry["index"]].texts)
        data.append(shown)
    data += [{"index": entry["index"], "error": entry["error"]} for entry in ranking.failed(result)]
    return {
        "object": "list",
        "data": data,
        "model": result.model,
        "usage": {"total_tokens": result.usage.total_tokens},
    }
