"""What the rerank dialects share: documents in, an ordered list out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, NotRequired, TypeAlias, TypedDict

import msgspec

from qvl.engine.dialects import items
from qvl.engine.dialects.items import Document
from qvl.engine.protocol import Content, RerankRequest, RerankResult, Source

Documents: TypeAlias = str | Document | Annotated[list[str | Document], msgspec.Meta(min_length=1)]
"""A string or an object alone is one document."""

NOT_ECHOED = "(inline media is not echoed)"


class EchoedDocument(TypedDict):
    """A document as text and links; inline bytes are replaced by a note."""

    text: str
    image: NotRequired[list[str]]
    video: NotRequired[list[str]]


class Ranked(TypedDict):
    """With `on_error: "skip"`, documents that failed follow the ranked ones; they have an `error` instead."""

    index: int
    relevance_score: NotRequired[float]
    document: NotRequired[EchoedDocument]
    error: NotRequired[dict[str, str | None]]


def documents(value: Documents, where: str = "documents") -> tuple[Content, ...]:
    if isinstance(value, list):
        return items.contents(value, where)
    return (items.content(value, where),)


def ranked(
    result: RerankResult,
    *,
    top_n: int | None = None,
    raw: bool = False,
    echo: Sequence[Content] | None = None,
) -> list[Ranked]:
    """Best first; equal scores keep the request's order; failed documents are left out."""
    values = (result.logits if raw else result.scores).tolist()
    entries: list[Ranked] = [{"index": i, "relevance_score": values[i]} for i in result.order(top_n)]
    if echo is not None:
        for entry in entries:
            entry["document"] = echoed(echo[entry["index"]])
    return entries


def failed(result: RerankResult) -> list[Ranked]:
    return [{"index": i, "error": error.entry()} for i, error in sorted(result.errors.items())]


def echoed(document: Content) -> EchoedDocument:
    entry: EchoedDocument = {"text": "".join(document.texts)}
    if document.images:
        entry["image"] = [_link(image) for image in document.images]
    if document.videos:
        entry["video"] = [_link(source) for source in _flat(document)]
    return entry


def _flat(document: Content) -> Iterator[Source]:
    for video in document.videos:
        if isinstance(video, tuple):
            yield from video
        else:
            yield video


def _link(source: Source) -> str:
    if isinstance(source, str) and source[:8].lower().startswith(("http://", "https://", "file://")):
        return source
    return NOT_ECHOED


def search_units(request: RerankRequest) -> int:
    """Cohere's unit of billing: a query with up to 100 documents."""
    return -(-len(request.documents) // 100)
