"""vLLM's `POST /score`, in every spelling it has had; and the fields that it shares with a rerank."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Annotated, Literal, NotRequired, TypeAlias, TypedDict

import msgspec

from qvl.engine.dialects import openai, ranking
from qvl.engine.dialects.fields import Truncate, agreed, cuts, one_of, priority, refuse
from qvl.engine.dialects.usage import Usage, usage
from qvl.engine.errors import BadRequest
from qvl.engine.protocol import Content, RerankRequest, RerankResult

OrAll: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
NEVER_CUT = "a query is never cut: every document is judged by it"


class Scoring(openai.Options):
    raw_scores: bool | None = None
    use_activation: bool | None = None
    """false: logits instead of their sigmoid."""
    max_tokens_per_doc: OrAll | None = None
    """0: no limit."""
    max_tokens_per_query: OrAll | None = None
    """0: no limit; there is no other."""
    truncate: Truncate | None = None
    truncation: bool | None = None

    def raw(self) -> bool:
        unscaled = None if self.use_activation is None else not self.use_activation
        return bool(agreed({"raw_scores": self.raw_scores, "use_activation": unscaled}))

    def request(self, query: Content, documents: tuple[Content, ...]) -> RerankRequest:
        if self.truncate_prompt_tokens not in (None, -1):
            raise BadRequest(
                "truncate_prompt_tokens: would cut the document in an unknown place; use max_tokens_per_doc",
                param="truncate_prompt_tokens",
                code="unsupported_field",
            )
        refuse(self.max_tokens_per_query, "max_tokens_per_query", NEVER_CUT)
        self.raw()  # before the work, not after it
        query, *others = self.sampled((query, *documents))
        return RerankRequest(
            query=query,
            documents=tuple(others),
            model=self.model,
            instruction=self.asked_instruction(),
            truncate=cuts(self.truncate, self.truncation),
            max_tokens_per_document=self.max_tokens_per_doc or None,
            on_error=self.on_error,
            priority=priority(self.priority),
        )


class ScoreBody(Scoring):
    """One query with N documents, or N queries with N documents, pair by pair."""

    queries: ranking.Documents | None = None
    documents: ranking.Documents | None = None
    items: ranking.Documents | None = None
    text_1: ranking.Documents | None = None
    text_2: ranking.Documents | None = None
    data_1: ranking.Documents | None = None
    data_2: ranking.Documents | None = None


class Score(TypedDict):
    index: int
    object: Literal["score", "error"]
    score: NotRequired[float]
    error: NotRequired[dict[str, str | None]]


class ScoreResponse(TypedDict):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Score]
    usage: Usage


def parse_score(body: ScoreBody) -> tuple[RerankRequest, ...]:
    """One request for one query, else one for each pair."""
    left = one_of({"queries": body.queries, "text_1": body.text_1, "data_1": body.data_1})
    right = one_of(
        {"documents": body.documents, "items": body.items, "text_2": body.text_2, "data_2": body.data_2}
    )
    queries = ranking.documents(getattr(body, left), left)
    documents = ranking.documents(getattr(body, right), right)
    if len(queries) == 1:
        return (body.request(queries[0], documents),)
    if len(queries) != len(documents):
        raise BadRequest(
            f"{len(queries)} {left} and {len(documents)} {right}: give one of the former, or as many of both",
            param=right,
            code="length_mismatch",
        )
    return tuple(body.request(query, (document,)) for query, document in zip(queries, documents, strict=True))


def render_score(body: ScoreBody, results: Sequence[RerankResult]) -> ScoreResponse:
    data: list[Score] = []
    for result in results:
        for i, value in enumerate((result.logits if body.raw() else result.scores).tolist()):
            if error := result.errors.get(i):
                data.append({"index": len(data), "object": "error", "error": error.entry()})
            else:
                data.append({"index": len(data), "object": "score", "score": value})
    return {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": results[0].model,
        "data": data,
        "usage": usage(reduce(add, (result.usage for result in results))),
    }
