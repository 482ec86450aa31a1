"""Everything between a request and the engine's inputs: media, prompt, token ids.

A query is loaded once for all its documents. An item that fails becomes its error, at its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias, TypeVar

from qvl.engine import prompt
from qvl.engine.errors import QvlError, Unavailable
from qvl.engine.lengths import MOST_ITEM_CHARACTERS, check, length, of_pairs, too_large, weight
from qvl.engine.media import MediaLoader, Quota, Visual
from qvl.engine.metrics import Metrics
from qvl.engine.prompt import Prompt
from qvl.engine.protocol import Content, EmbedRequest, OnError, RerankRequest, Tokens, Usage
from qvl.engine.text_side import TextSide

T = TypeVar("T")
_INLINE = 20_000
"""What weighs more, by `weight`, is tokenised off the event loop."""
_PART_ITEMS, _PART_WEIGHT = 64, 1 << 20
"""Of a request, what is tokenised at once: before it is cut it takes 280 bytes a character."""
_READERS = 2
"""Threads that tokenise what is not short, a part of some request each."""


@dataclass(slots=True)
class Ready:
    """One engine input to be."""

    prompt: Prompt
    visuals: tuple[Visual, ...]
    """None any more once it is on its way, so that its pixels do not count as waited for."""


Outcome: TypeAlias = Ready | QvlError


def usage(batch: Iterable[Outcome]) -> Usage:
    """Of all that the model is to read."""
    ready = [each for each in batch if isinstance(each, Ready)]
    tokens = sum([len(each.prompt.ids) for each in ready])
    visuals = [visual for each in ready for visual in each.visuals]
    if not visuals:
        return Usage(text_tokens=tokens)
    visual = sum(v.tokens for v in visuals)
    images = [v.pixels.size // 3 for v in visuals if v.kind == "image"]
    videos = [v.pixels.size // 3 for v in visuals if v.kind == "video"]
    return Usage(
        text_tokens=tokens - visual,
        visual_tokens=visual,
        images=len(images),
        videos=len(videos),
        image_pixels=sum(images),
        video_pixels=sum(videos),
    )


@dataclass(frozen=True, slots=True)
class _Item:
    """One whose media are loaded: what writes its prompt, or the ids that the caller made."""

    source: Callable[[], str] | Tokens
    visuals: tuple[Visual, ...]
    where: str
    weight: int


class Preparer:
    """Shared by the models of a replica; holds the media workers."""

    def __init__(self, media: MediaLoader, metrics: Metrics) -> None:
        self._media = media
        self._metrics = metrics
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="qvl-texts")
        self._closed = False

    def quota(self) -> Quota:
        """For the parts of one request that are given to `rerank` one by one."""
        return self._media.quota()

    async def embed(self, request: EmbedRequest, side: TextSide) -> list[Outcome]:
        """One outcome per item. Raises the first error unless `on_error="skip"`."""
        shared = request.instruction
        check(sum(length(item, shared) for item in request.input if isinstance(item, Content)))
        media = [Content() if isinstance(item, Tokens) else item for item in request.input]
        items: list[_Item | QvlError] = []
        for item, seen in zip(request.input, await self._load(media, request.on_error), strict=True):
            if isinstance(seen, QvlError):
                items.append(seen)
            elif isinstance(item, Tokens):
                items.append(_Item(item, (), item.where, len(item.ids)))
            else:
                text = partial(prompt.embed_text, side.template, item, seen, shared)
                items.append(_bounded(_Item(text, seen, item.where, weight(item, shared)), item, shared))
        return await self._tokenize(side, items, request, request.max_tokens)

    async def rerank(
        self, request: RerankRequest, side: TextSide, quota: Quota | None = None
    ) -> list[Outcome]:
        """One outcome per document. The query's error is raised in any case."""
        query, documents, shared = request.query, request.documents, request.instruction
        check(of_pairs(request))
        query_outcome, *seen_all = await self._load([query, *documents], request.on_error, quota)
        query_seen = too_large(query, shared) or query_outcome
        if isinstance(query_seen, QvlError):
            raise query_seen
        queries = weight(query, shared)
        items: list[_Item | QvlError] = []
        for document, seen in zip(documents, seen_all, strict=True):
            if isinstance(seen, QvlError):
                items.append(seen)
                continue
            text = partial(_pair_text, side, request, document, query_seen, seen)
            item = _Item(text, (*query_seen, *seen), document.where, queries + weight(document, None))
            items.append(_bounded(item, document, None))
        return await self._tokenize(side, items, request, None, quota)

    async def close(self) -> None:
        self._closed = True
        self._readers.shutdown(wait=False)
        await self._media.close()

    async def _load(
        self, items: Sequence[Content], on_error: OnError, quota: Quota | None = None
    ) -> list[tuple[Visual, ...] | QvlError]:
        if not any(item.images or item.videos for item in items):
            return [()] * len(items)
        with self._metrics.stage("media"):
            return settled(await self._media.load(items, quota), on_error)

    async def _tokenize(
        self,
        side: TextSide,
        items: list[_Item | QvlError],
        request: EmbedRequest | RerankRequest,
        max_tokens: int | None,
        quota: Quota | None = None,
    ) -> list[Outcome]:
        finish = partial(_finished, side, truncate=request.truncate, max_tokens=max_tokens)
        outcomes: list[Outcome] = []
        with self._metrics.stage("tokenize"):
            settled(items, request.on_error)
            if sum(map(_weight_of, items)) <= _INLINE:
                outcomes = finish(items)
            else:
                for part in _parts(items):
                    async with quota.reading if quota else nullcontext():
                        outcomes += await self._read(partial(finish, part))
        return settled(outcomes, request.on_error)

    async def _read(self, work: Callable[[], T]) -> T:
        """In a thread; requests take turns. Of one whose caller has gone, no more is read than this."""
        if self._closed:
            raise Unavailable("the engine is stopping", code="draining")
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)


def _pair_text(
    side: TextSide,
    request: RerankRequest,
    document: Content,
    query_seen: tuple[Visual, ...],
    seen: tuple[Visual, ...],
) -> str:
    if (most := request.max_tokens_per_document) and document.texts:
        # In a prompt its texts stand end to end.
        document = replace(document, texts=(side.tokenizer.clip("".join(document.texts), most),))
    return prompt.rerank_text(side.template, request.query, document, query_seen, seen, request.instruction)


def _bounded(item: _Item, content: Content, instruction: str | None) -> _Item | QvlError:
    return item if item.weight <= MOST_ITEM_CHARACTERS else too_large(content, instruction) or item


def _parts(items: Iterable[_Item | QvlError]) -> Iterator[list[_Item | QvlError]]:
    part: list[_Item | QvlError] = []
    weight = 0
    for item in items:
        if part and (len(part) == _PART_ITEMS or weight + _weight_of(item) > _PART_WEIGHT):
            yield part
            part, weight = [], 0
        part.append(item)
        weight += _weight_of(item)
    yield part


def _finished(
    side: TextSide, items: Sequence[_Item | QvlError], *, truncate: bool, max_tokens: int | None
) -> list[Outcome]:
    texts = [s.source() for s in items if isinstance(s, _Item) and not isinstance(s.source, Tokens)]
    encoded = iter(side.tokenizer.encode(texts))
    outcomes: list[Outcome] = []
    for each in items:
        if isinstance(each, _Item):
            ids = each.source if isinstance(each.source, Tokens) else next(encoded)
            outcomes.append(_finish(side, each, ids, truncate, max_tokens))
        else:
            outcomes.append(each)
    return outcomes


def _finish(
    side: TextSide, item: _Item, ids: list[int] | Tokens, truncate: bool, max_tokens: int | None
) -> Outcome:
    try:
        if isinstance(ids, Tokens):
            checked = side.tokenizer.check_ids(ids.ids, item.where, truncate=truncate, max_tokens=max_tokens)
            return Ready(checked, ())
        found = side.tokenizer.prompt(
            ids, item.visuals, where=item.where, truncate=truncate, max_tokens=max_tokens
        )
        return Ready(found, item.visuals)
    except QvlError as error:
        return error.bare()


def _weight_of(item: _Item | QvlError) -> int:
    return item.weight if isinstance(item, _Item) else 0


def settled(outcomes: list[T | QvlError], on_error: OnError) -> list[T | QvlError]:
    """Raises the first error, unless errors are to be skipped."""
    if on_error == "fail":
        for each in outcomes:
            if isinstance(each, QvlError):
                raise each
    return outcomes
