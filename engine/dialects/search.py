"""`POST /v1/search`: our own shape, with `query`, `top_n`, `model` and documents as `/v1/rerank` has them.

A filter names fields of the items' metadata; all of them must fit:

    {"kind": "page", "year": {"gte": 2020, "lt": 2024}, "language": ["de", "fr"]}

A value must be equal, a list holds what is accepted, bounds are numbers, or texts such as "2024-05-01".
"""

from __future__ import annotations

import re
import uuid
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict

import msgspec

from qvl.engine.dialects import items, ranking, tasks
from qvl.engine.dialects.fields import Body, Count, Urgency, decode, priority
from qvl.engine.dialects.items import Document
from qvl.engine.dialects.usage import Usage, usage
from qvl.engine.errors import BadRequest
from qvl.engine.protocol import Condition, Content, Scalar, SearchRequest, SearchResult

MOST = 64
"""Fields of a filter or of an item's metadata."""
MOST_VALUES = 10_000
"""Accepted by all fields of a filter; an SQLite as it comes takes 32,766 parameters."""
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")

Whole: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=1024)]
Value: TypeAlias = Whole | float | bool | Text
Bound: TypeAlias = Whole | float | Text


class Bounds(Body):
    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None


BOUNDS = Bounds.__struct_fields__
Rule: TypeAlias = Value | Annotated[list[Value], msgspec.Meta(min_length=1, max_length=500)] | Bounds
Field: TypeAlias = Value | Annotated[list[Value], msgspec.Meta(max_length=MOST)] | None
# Read one by one, so that an error can name the field; the schema still says what is accepted.
_RULE = {"description": "a value, a list of accepted values, or bounds: gt, gte, lt, lte"}
Filter: TypeAlias = dict[str, Annotated[Any, msgspec.Meta(extra_json_schema=_RULE)]]


class SearchBody(Body):
    query: str | Document
    top_n: Count = 10
    recall: Count = 100
    """Candidates that the vectors pick, for the reranker to order."""
    filter: Filter | None = None
    rerank: bool | None = None
    """Default: when a reranker is served. false: the order of the vectors."""
    instruction: str | None = None
    """For both models; default: the one for queries, and the reranker's own."""
    model: str | None = None
    rerank_model: str | None = None
    return_documents: bool | None = None
    """Default true."""
    user: str | None = None
    priority: Urgency | None = None


class Found(TypedDict):
    """`relevance_score` is the reranker's; where it could not read the item there is an `error` instead."""

    id: str
    similarity: float
    relevance_score: NotRequired[float]
    error: NotRequired[dict[str, str | None]]
    document: NotRequired[ranking.EchoedDocument]
    metadata: dict[str, Any]


class SearchResponse(TypedDict):
    id: str
    object: Literal["list"]
    model: str
    rerank_model: str | None
    reranked: bool
    note: NotRequired[str]
    """Why the results were not reranked, or how many candidates could not be read."""
    candidates: int
    """Items that the vectors recalled."""
    results: list[Found]
    usage: Usage


class _Documents(Body):
    items: list[str | items.Item]


def parse(body: SearchBody) -> SearchRequest:
    return SearchRequest(
        query=items.content(body.query, "query"),
        top_n=body.top_n,
        recall=max(body.recall, body.top_n),
        where=conditions(body.filter or {}),
        rerank=body.rerank,
        instruction=body.instruction,
        model=body.model,
        reranker=body.rerank_model,
        priority=priority(body.priority),
    )


def conditions(rules: dict[str, Any]) -> tuple[Condition, ...]:
    _named("filter", rules)
    made = tuple(_condition(key, _checked(rule, Rule, f"filter.{key}")) for key, rule in rules.items())
    if (values := sum(len(each.values) for each in made)) > MOST_VALUES:
        raise BadRequest(f"filter: {values} accepted values; at most {MOST_VALUES}", param="filter")
    return made


def metadata(value: Any) -> dict[str, Scalar | list[Scalar]]:
    """An item's fields as they may be stored; nulls are left out."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest("metadata must be an object", param="metadata")
    _named("metadata", value)
    return {key: _checked(each, Field, f"metadata.{key}") for key, each in value.items() if each is not None}


def contents(stored: list[bytes]) -> tuple[Content, ...]:
    """Items of an index, from their JSON."""
    raw = b'{"items":[' + b",".join(stored) + b"]}"
    return items.contents(decode(_Documents, raw).items, "results")


def render(body: SearchBody, result: SearchResult) -> SearchResponse:
    shown = contents([hit.item for hit in result.hits]) if body.return_documents is not False else ()
    found: list[Found] = []
    for i, hit in enumerate(result.hits):
        entry: Found = {"id": hit.id, "similarity": hit.similarity, "metadata": hit.metadata}
        if hit.score is not None:
            entry["relevance_score"] = hit.score
        if hit.error is not None:
            entry["error"] = hit.error.entry()
        if shown:
            entry["document"] = ranking.echoed(shown[i])
        found.append(entry)
    answer: SearchResponse = {
        "id": str(uuid.uuid4()),
        "object": "list",
        "model": result.model,
        "rerank_model": result.reranker,
        "reranked": result.reranker is not None,
        "candidates": result.candidates,
        "results": found,
        "usage": usage(result.usage),
    }
    if result.note:
        answer["note"] = result.note
    return answer


def query_instruction(asked: str | None) -> str:
    """What vectors of queries are for."""
    return tasks.QUERY if asked is None else asked


def _condition(key: str, rule: Any) -> Condition:
    if isinstance(rule, Bounds):
        bounds = {name: getattr(rule, name) for name in BOUNDS}
        kinds = {isinstance(bound, str) for bound in bounds.values() if bound is not None}
        if len(kinds) != 1:
            what = "either numbers or texts" if kinds else ", ".join(BOUNDS)
            raise BadRequest(f"filter.{key}: give {what}", param=f"filter.{key}")
        return Condition(key=key, **bounds)
    return Condition(key=key, values=tuple(rule if isinstance(rule, list) else [rule]))


def _named(where: str, fields: dict[str, Any]) -> None:
    if len(fields) > MOST:
        raise BadRequest(f"{where}: {len(fields)} fields; at most {MOST}", param=where)
    for key in fields:
        if not KEY.fullmatch(key):
            raise BadRequest(
                f"{where}: the field {key[:80]!r} needs another name: letters, digits, _ and -, at most 64, "
                "no digit in front",
                param=where,
            )


def _checked(value: Any, kind: Any, where: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        if "unknown field" in text:
            text += f"; bounds are {', '.join(BOUNDS)}"
        where += path.rstrip("`")
        raise BadRequest(f"{where}: {text}", param=where) from None
