"""NVIDIA's rerank, `POST /v1/ranking`: LangChain's and LlamaIndex's NVIDIARerank ask for it, Weaviate's
by the path of NVIDIA's own host.

Its `logit` is what the sigmoid of a score is taken of: the model's yes minus its no. Their embeddings are on
`/v1/embeddings`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

import msgspec

from qvl.engine.dialects import items, ranking
from qvl.engine.dialects.fields import Body, Count, agreed, cuts
from qvl.engine.dialects.items import Document
from qvl.engine.protocol import RerankRequest, RerankResult


class RankingBody(Body):
    query: Document
    passages: Annotated[list[Document], msgspec.Meta(min_length=1)]
    model: str | None = None
    truncate: Literal["NONE", "START", "END"] | None = None
    """Default END, as everywhere here."""
    top_n: Count | None = None
    """Default: all. RAGFlow says it, and LiteLLM as `top_k`."""
    top_k: Count | None = None


class Ranked(TypedDict):
    index: int
    logit: float


class Usage(TypedDict):
    prompt_tokens: int
    total_tokens: int


class RankingResponse(TypedDict):
    rankings: list[Ranked]
    usage: Usage


def parse(body: RankingBody) -> RerankRequest:
    return RerankRequest(
        query=items.content(body.query, "query"),
        documents=items.contents(body.passages, "passages"),
        model=body.model,
        truncate=cuts(body.truncate),
    )


def render(body: RankingBody, request: RerankRequest, result: RerankResult) -> RankingResponse:
    tokens = result.usage.total_tokens
    most = agreed({"top_n": body.top_n, "top_k": body.top_k})
    return {
        "rankings": [
            {"index": each["index"], "logit": each["relevance_score"]}
            for each in ranking.ranked(result, top_n=most, raw=True)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
