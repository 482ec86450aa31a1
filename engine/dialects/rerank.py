"""`POST /v1/rerank`: Jina's and Cohere v1's shape, whose answers share one object; also TEI's flags."""

from __future__ import annotations

import uuid
from typing import Annotated, Literal, NotRequired, TypedDict

import msgspec

from qvl.engine.dialects import items, ranking
from qvl.engine.dialects.fields import Body, Count, Urgency, priority
from qvl.engine.dialects.items import Document
from qvl.engine.dialects.usage import Usage, usage
from qvl.engine.protocol import OnError, RerankRequest, RerankResult


class RerankBody(Body):
    query: str | Document
    documents: ranking.Documents
    model: str | None = None
    top_n: Count | None = None
    return_documents: bool | None = None
    """Default false."""
    instruction: str | None = None
    raw_scores: bool | None = None
    """Logits instead of their sigmoid."""
    max_tokens_per_doc: Count | None = None
    truncate: bool | None = None
    truncation: bool | None = None
    on_error: OnError = "fail"
    rank_fields: list[Literal["text"]] | None = None
    max_chunks_per_doc: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    """No effect: a document is never cut into chunks."""
    truncate_prompt_tokens: Literal[-1] | None = None
    """No effect: vLLM's clients send it here too."""
    user: str | None = None
    priority: Urgency | None = None


class ApiVersion(TypedDict):
    version: str


class BilledUnits(TypedDict):
    search_units: int


class Meta(TypedDict):
    api_version: ApiVersion
    billed_units: BilledUnits


class RerankResponse(TypedDict):
    id: str
    object: NotRequired[Literal["list"]]
    model: str
    results: list[ranking.Ranked]
    usage: Usage
    meta: Meta


def parse(body: RerankBody) -> RerankRequest:
    return RerankRequest(
        query=items.content(body.query, "query"),
        documents=ranking.documents(body.documents),
        model=body.model,
        instruction=body.instruction,
        truncate=body.truncate is not False and body.truncation is not False,
        max_tokens_per_document=body.max_tokens_per_doc,
        on_error=body.on_error,
        priority=priority(body.priority),
    )


def render(body: RerankBody, request: RerankRequest, result: RerankResult) -> RerankResponse:
    echo = request.documents if body.return_documents else None
    best = ranking.ranked(result, top_n=body.top_n, raw=bool(body.raw_scores), echo=echo)
    return {
        "id": str(uuid.uuid4()),
        "object": "list",
        "model": result.model,
        "results": [*best, *ranking.failed(result)],
        "usage": usage(result.usage),
        "meta": {
            "api_version": {"version": "1"},
            "billed_units": {"search_units": ranking.search_units(request)},
        },
    }
