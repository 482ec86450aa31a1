"""Cohere's `POST /v2/embed`, and the first version's `POST /v1/embed`.

Its reranks are in `rerank.py`. `input_type` is an instruction, as `tasks` has it.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Literal, NotRequired, TypeAlias, TypedDict

import msgspec

from qvl.engine.dialects import items, tasks, vectors
from qvl.engine.dialects.fields import Body, Count, Urgency, cuts, one_of, priority
from qvl.engine.dialects.items import Item
from qvl.engine.protocol import Content, EmbedRequest, EmbedResult

EmbeddingType: TypeAlias = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]


class EmbedBody(Body):
    model: str | None = None
    input_type: tasks.Task | None = None
    texts: Annotated[list[str], msgspec.Meta(min_length=1)] | None = None
    images: Annotated[list[str], msgspec.Meta(min_length=1)] | None = None
    inputs: Annotated[list[Item], msgspec.Meta(min_length=1)] | None = None
    output_dimension: Count | None = None
    embedding_types: Annotated[list[EmbeddingType], msgspec.Meta(min_length=1)] | None = None
    truncate: Literal["NONE", "START", "END"] | None = None
    """Default END."""
    max_tokens: Count | None = None
    priority: Urgency | None = None


class ApiVersion(TypedDict):
    version: Literal["1", "2"]


class BilledUnits(TypedDict):
    input_tokens: NotRequired[int]
    image_tokens: NotRequired[int]
    images: NotRequired[int]


class Meta(TypedDict):
    api_version: ApiVersion
    billed_units: BilledUnits


class EmbedResponse(TypedDict):
    id: str
    response_type: Literal["embeddings_by_type"]
    embeddings: dict[EmbeddingType, list[vectors.Vector]]
    texts: list[str]
    images: list[str]
    meta: Meta


class FloatsResponse(TypedDict):
    """The first version's, where no types were asked for."""

    id: str
    response_type: Literal["embeddings_floats"]
    embeddings: list[vectors.Vector]
    texts: list[str]
    images: list[str]
    meta: Meta


def parse_embed(body: EmbedBody) -> EmbedRequest:
    entries: tuple[Content, ...]
    match one_of({"texts": body.texts, "images": body.images, "inputs": body.inputs}):
        case "texts":
            entries = items.contents(body.texts or (), "texts")
        case "images":
            entries = tuple(
                Content(images=(image,), where=f"images[{i}]") for i, image in enumerate(body.images or ())
            )
        case _:
            entries = items.contents(body.inputs or (), "inputs")
    return EmbedRequest(
        input=entries,
        model=body.model,
        instruction=tasks.instruction(None, input_type=body.input_type),
        documents=tasks.documents(input_type=body.input_type),
        dimensions=body.output_dimension,
        truncate=cuts(body.truncate),
        max_tokens=body.max_tokens,
        priority=priority(body.priority),
    )


def render_embed(body: EmbedBody, result: EmbedResult, encode: vectors.Encode) -> EmbedResponse:
    cost = result.usage
    names = dict.fromkeys(body.embedding_types or ("float",))
    return {
        "id": str(uuid.uuid4()),
        "response_type": "embeddings_by_type",
        "embeddings": {name: encode(vectors.spelled(name)) for name in names},
        "texts": body.texts or [],
        # Cohere describes each image's size and format here; nothing needs it, so it stays empty.
        "images": [],
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {
                "input_tokens": cost.text_tokens,
                "image_tokens": cost.visual_tokens,
                "images": cost.images,
            },
        },
    }


def render_embed_v1(
    body: EmbedBody, result: EmbedResult, encode: vectors.Encode
) -> EmbedResponse | FloatsResponse:
    answer = render_embed(body, result, encode)
    answer["meta"]["api_version"]["version"] = "1"
    if body.embedding_types is not None:
        return answer
    return {
        "id": answer["id"],
        "response_type": "embeddings_floats",
        "embeddings": answer["embeddings"]["float"],
        "texts": answer["texts"],
        "images": answer["images"],
        "meta": answer["meta"],
    }
