"""`POST /v1/rerank`: vLLM's, Jina's and Cohere v1's, whose answers share one object; also TEI's flags.

Cohere's documents may be records of texts: of one with keys that an item has not, `rank_fields` are read,
one below the other, or `text` alone. A field that is there and is no text is refused, and so are `image`
and `video`: what they hold is seen in an item, without `rank_fields`. Voyage's `top_k`, which its client
always sends, be it null, asks for Voyage's answer.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict

import msgspec

from qvl.engine.dialects import items, ranking, vllm, voyage
from qvl.engine.dialects.fields import Count, agreed, convert, near, refuse, short
from qvl.engine.dialects.items import Document
from qvl.engine.dialects.usage import Usage, usage
from qvl.engine.errors import BadRequest
from qvl.engine.protocol import Content, RerankRequest, RerankResult

Flag: TypeAlias = bool | Literal["true", "false"]
"""Xinference's clients write words."""

MOST_MISSPELT = 4
"""Keys of a record that are compared with an item's; one of more keys is a record."""
_MEDIA = frozenset({"image", "video"})
_OF_ITEMS = frozenset((*Document.__struct_fields__, "instruction"))
_RECORD = {"description": "a `Document`; or a record of texts, of which `rank_fields` or `text` are read"}
# Read as anything first: its keys are the caller's own.
Record: TypeAlias = Annotated[dict[str, Any], msgspec.Meta(extra_json_schema=_RECORD)]
Records: TypeAlias = str | Record | Annotated[list[str | Record], msgspec.Meta(min_length=1)]


class RerankBody(vllm.Scoring, kw_only=True):
    query: str | Document
    documents: Records
    top_n: vllm.OrAll | None = None
    """0: all."""
    top_k: Count | msgspec.UnsetType | None = msgspec.UNSET
    return_documents: Flag | None = None
    """Default false."""
    return_len: Flag | None = None
    """No effect: the tokens are always counted."""
    rank_fields: Annotated[list[str], msgspec.Meta(min_length=1)] | None = None
    max_chunks_per_doc: Count | None = None
    """No effect: a document is never cut into chunks."""


class ApiVersion(TypedDict):
    version: str


class BilledUnits(TypedDict):
    search_units: int


class Tokens(TypedDict):
    input_tokens: int
    output_tokens: int


class Meta(TypedDict):
    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: Tokens


class RerankResponse(TypedDict):
    id: str
    object: NotRequired[Literal["list"]]
    model: str
    results: list[ranking.Ranked]
    usage: Usage
    meta: Meta


def parse(body: RerankBody) -> RerankRequest:
    _most(body)
    media = _MEDIA.intersection(body.rank_fields or ())
    refuse(media, "rank_fields", "its fields are read as texts; without it an item's image or video is seen")
    return body.request(items.content(body.query, "query"), _documents(body.documents, body.rank_fields))


def render(
    body: RerankBody, request: RerankRequest, result: RerankResult
) -> RerankResponse | voyage.RerankResponse:
    echo = request.documents if body.return_documents in (True, "true") else None
    if body.top_k is not msgspec.UNSET:
        return voyage.render_rerank(result, top_k=_most(body), raw=body.raw(), echo=echo)
    best = ranking.ranked(result, top_n=_most(body), raw=body.raw(), echo=echo)
    return {
        "id": str(uuid.uuid4()),
        "object": "list",
        "model": result.model,
        "results": [*best, *ranking.failed(result)],
        "usage": usage(result.usage),
        "meta": {
            "api_version": {"version": "1"},
            "billed_units": {"search_units": ranking.search_units(request)},
            "tokens": {"input_tokens": result.usage.total_tokens, "output_tokens": 0},
        },
    }


def _most(body: RerankBody) -> int | None:
    """How many to answer with; None: all."""
    top_k = body.top_k if isinstance(body.top_k, int) else None
    return agreed({"top_n": body.top_n, "top_k": top_k}) or None


def _documents(value: Records, fields: list[str] | None) -> tuple[Content, ...]:
    if isinstance(value, list):
        return tuple(_document(each, f"documents[{i}]", fields) for i, each in enumerate(value))
    return (_document(value, "documents", fields),)


def _document(value: str | Record, where: str, fields: list[str] | None) -> Content:
    if isinstance(value, str) or _is_item(value, fields):
        return items.content(value if isinstance(value, str) else convert(Document, value, where), where)
    present = [name for name in fields or ["text"] if value.get(name) is not None]
    texts = [_text(value[name], f"{where}.{short(name)}") for name in present]
    if not texts:
        raise BadRequest(f"{where}: it has none of the `rank_fields`", param=where, code="missing_field")
    return Content(texts=("\n".join(texts),), where=where)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{where}: a field to rank by must be a text", param=where)
    return value


def _is_item(record: Record, fields: list[str] | None) -> bool:
    """Whether it is to be one, be it that a key is misspelt."""
    if fields not in (None, ["text"]):
        return False
    foreign = record.keys() - _OF_ITEMS
    only_text = isinstance(record.get("text"), str) and len(record) - len(foreign) == 1
    misspelt = len(foreign) <= MOST_MISSPELT and any(near(name, Document) for name in foreign)
    return not foreign or not only_text or misspelt
