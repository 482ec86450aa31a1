"""DashScope's multimodal embedding and its rerank, as which Alibaba hosts these models.

Each of `contents` is an item, be it a mixture; with `enable_fusion` all are one item. A vector's `type` is
`vl`, as that of `qwen3-vl-embedding` there. `fps` is frames a second; one is the default of both.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Annotated, Literal, TypedDict

import msgspec

from qvl.engine import protocol
from qvl.engine.dialects import items, parts, ranking, vectors
from qvl.engine.dialects.fields import Body, Count, refuse
from qvl.engine.dialects.items import Document
from qvl.engine.protocol import Content, EmbedRequest, EmbedResult, RerankRequest, RerankResult


class Element(Body):
    text: str | None = None
    image: str | None = None
    multi_images: Annotated[list[str], msgspec.Meta(min_length=1)] | None = None
    video: str | None = None
    factor: float | None = None


class Contents(Body):
    contents: Annotated[list[Element], msgspec.Meta(min_length=1)]


class Parameters(Body):
    instruct: str | None = None
    fps: parts.Fps | None = None
    max_video_frames: parts.Frames | None = None
    res_level: int | None = None

    def check(self) -> None:
        refuse(
            self.res_level is not None, "parameters.res_level", "pixel limits are the server's (--max-pixels)"
        )

    def sampled(self, content: Content) -> Content:
        """With the request's rate, where it has none of its own."""
        if not content.videos or content.fps or content.max_frames:
            return content
        return replace(content, fps=self.fps, max_frames=self.max_video_frames)


class EmbedParameters(Parameters):
    dimension: Count | None = None
    enable_fusion: bool | None = None
    auto_truncation: bool | None = None
    """Default true, as everywhere here."""
    output_type: Literal["dense"] | None = None


class EmbedBody(Body):
    input: Contents
    model: str | None = None
    parameters: EmbedParameters | None = None


class Details(TypedDict):
    text_tokens: int
    image_tokens: int


class Usage(TypedDict):
    input_tokens: int
    image_tokens: int
    """Those of videos as well."""
    input_tokens_details: Details
    total_tokens: int


class Embedding(TypedDict):
    index: int
    embedding: vectors.Vector
    type: Literal["vl"]


class Embeddings(TypedDict):
    embeddings: list[Embedding]


class EmbedResponse(TypedDict):
    output: Embeddings
    usage: Usage
    request_id: str


def parse_embed(body: EmbedBody) -> EmbedRequest:
    asked = body.parameters or EmbedParameters()
    asked.check()
    found = [_content(each, f"input.contents[{i}]") for i, each in enumerate(body.input.contents)]
    if asked.enable_fusion:
        found = [
            Content(
                videos=tuple(video for each in found for video in each.videos),
                images=tuple(image for each in found for image in each.images),
                texts=tuple(text for each in found for text in each.texts),
                where="input.contents",
            )
        ]
    return EmbedRequest(
        input=tuple(map(asked.sampled, found)),
        model=body.model,
        instruction=asked.instruct,
        dimensions=asked.dimension,
        truncate=asked.auto_truncation is not False,
    )


def _content(element: Element, where: str) -> Content:
    refuse(element.factor not in (None, 1), f"{where}.factor", "the parts of an item have no weights")
    images = (element.image, *(element.multi_images or ()))
    return Content(
        videos=() if element.video is None else (element.video,),
        images=tuple(image for image in images if image is not None),
        texts=() if element.text is None else (element.text,),
        where=where,
    )


def render_embed(body: EmbedBody, result: EmbedResult, encode: vectors.Encode) -> EmbedResponse:
    return {
        "output": {
            "embeddings": [
                {"index": i, "embedding": vector, "type": "vl"}
                for i, vector in enumerate(encode(vectors.Kind()))
            ]
        },
        "usage": _usage(result.usage),
        "request_id": str(uuid.uuid4()),
    }


class Asked(Body):
    query: str | Document
    documents: ranking.Documents


class RerankParameters(Parameters):
    top_n: Count | None = None
    return_documents: bool | None = None
    """Default false."""


class RerankBody(Body):
    input: Asked
    model: str | None = None
    parameters: RerankParameters | None = None


class Results(TypedDict):
    results: list[ranking.Ranked]


class RerankResponse(TypedDict):
    output: Results
    usage: Usage
    request_id: str


def parse_rerank(body: RerankBody) -> RerankRequest:
    asked = body.parameters or RerankParameters()
    asked.check()
    return RerankRequest(
        query=asked.sampled(items.content(body.input.query, "input.query")),
        documents=tuple(map(asked.sampled, ranking.documents(body.input.documents, "input.documents"))),
        model=body.model,
        instruction=asked.instruct,
    )


def render_rerank(body: RerankBody, request: RerankRequest, result: RerankResult) -> RerankResponse:
    asked = body.parameters or RerankParameters()
    echo = request.documents if asked.return_documents else None
    return {
        "output": {"results": ranking.ranked(result, top_n=asked.top_n, echo=echo)},
        "usage": _usage(result.usage),
        "request_id": str(uuid.uuid4()),
    }


def _usage(cost: protocol.Usage) -> Usage:
    return {
        "input_tokens": cost.total_tokens,
        "image_tokens": cost.visual_tokens,
        "input_tokens_details": {"text_tokens": cost.text_tokens, "image_tokens": cost.visual_tokens},
        "total_tokens": cost.total_tokens,
    }
