"""Everything between a request and the engine's inputs: media, prompt, token ids.

A query is loaded once for all its documents. An item that fails becomes its error, at its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from qvl.engine import prompt
from qvl.engine.errors import QvlError, TooLarge
from qvl.engine.media import MediaLoader, Visual
from qvl.engine.metrics import Metrics
from qvl.engine.prompt import Prompt
from qvl.engine.protocol import Content, EmbedRequest, OnError, RerankRequest, Tokens, Usage
from qvl.engine.text_side import TextSide

T = TypeVar("T")
_INLINE_BYTES = 20_000
"""Text beyond this is tokenised off the event loop; of one that is not ASCII, which takes longer, a character
counts as four."""
_AT_ONCE = 64
"""Texts of one request whose ids are held before they are cut."""

MOST_CHARACTERS = 128 << 20
"""Of all prompts of one request: an instruction stands in each of them, a query in each pair."""


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
class _Spelled:
    """An item whose media are loaded: its prompt's text, or the ids that the caller made."""

    source: str | Tokens
    visuals: tuple[Visual, ...]
    where: str


class Preparer:
    """Shared by the models of a replica; holds the media workers."""

    def __init__(self, media: MediaLoader, metrics: Metrics) -> None:
        self._media = media
        self._metrics = metrics

    async def embed(self, request: EmbedRequest, side: TextSide) -> list[Outcome]:
        """One outcome per item. Raises the first error unless `on_error="skip"`."""
        items = [Content() if isinstance(item, Tokens) else item for item in request.input]
        written = (item for item in request.input if isinstance(item, Content))
        _check_length(sum(_length(item, request.instruction) for item in written))
        spelled: list[_Spelled | QvlError] = []
        for item, seen in zip(request.input, await self._load(items, request.on_error), strict=True):
            if isinstance(seen, QvlError):
                spelled.append(seen)
            elif isinstance(item, Tokens):
                spelled.append(_Spelled(item, (), item.where))
            else:
                text = prompt.embed_text(side.template, item, seen, request.instruction)
                spelled.append(_Spelled(text, seen, item.where))
        return await self._tokenize(side, spelled, request, request.max_tokens)

    async def rerank(self, request: RerankRequest, side: TextSide) -> list[Outcome]:
        """One outcome per document. The query's error is raised in any case."""
        query, documents = request.query, request.documents
        before = len(documents) * _length(query, request.instruction)
        _check_length(before + sum(_length(each, None) for each in documents))
        if most := request.max_tokens_per_document:
            texts = [text for each in documents for text in each.texts]
            documents = await _beside(texts, lambda: _clipped(documents, side, most))
        query_seen, *seen_all = await self._load([query, *documents], request.on_error)
        if isinstance(query_seen, QvlError):
            raise query_seen
        spelled: list[_Spelled | QvlError] = []
        for document, seen in zip(documents, seen_all, strict=True):
            if isinstance(seen, QvlError):
                spelled.append(seen)
                continue
            text = prompt.rerank_text(side.template, query, document, query_seen, seen, request.instruction)
            spelled.append(_Spelled(text, (*query_seen, *seen), document.where))
        return await self._tokenize(side, spelled, request, None)

    async def close(self) -> None:
        await self._media.close()

    async def _load(self, items: Sequence[Content], on_error: OnError) -> list[tuple[Visual, ...] | QvlError]:
        if not any(item.images or item.videos for item in items):
            return [()] * len(items)
        with self._metrics.stage("media"):
            return settled(await self._media.load(items), on_error)

    async def _tokenize(
        self,
        side: TextSide,
        spelled: Sequence[_Spelled | QvlError],
        request: EmbedRequest | RerankRequest,
        max_tokens: int | None,
    ) -> list[Outcome]:
        def tokenised() -> list[Outcome]:
            parts = (spelled[start : start + _AT_ONCE] for start in range(0, len(spelled), _AT_ONCE))
            return [each for part in parts for each in _finished(side, part, request.truncate, max_tokens)]

        texts = [s.source for s in spelled if isinstance(s, _Spelled) and isinstance(s.source, str)]
        with self._metrics.stage("tokenize"):
            outcomes = await _beside(texts, tokenised)
        return settled(outcomes, request.on_error)


def _finished(
    side: TextSide, spelled: Sequence[_Spelled | QvlError], truncate: bool, max_tokens: int | None
) -> Iterator[Outcome]:
    texts = [s.source for s in spelled if isinstance(s, _Spelled) and isinstance(s.source, str)]
    encoded = iter(side.tokenizer.encode(texts))
    for each in spelled:
        if isinstance(each, _Spelled):
            ids = next(encoded) if isinstance(each.source, str) else each.source
            yield _finish(side, each, ids, truncate, max_tokens)
        else:
            yield each


def _finish(
    side: TextSide, item: _Spelled, ids: list[int] | Tokens, truncate: bool, max_tokens: int | None
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


def _length(item: Content, instruction: str | None) -> int:
    return sum(map(len, item.texts)) + len(item.instruction or instruction or "")


def _check_length(characters: int) -> None:
    """What a small body can grow to."""
    if characters > MOST_CHARACTERS:
        raise TooLarge(
            f"the prompts of this request have {characters:,} characters, its instruction and query counted "
            f"in each; at most {MOST_CHARACTERS:,}: shorten them, or send fewer items at once",
            code="prompts_too_large",
        )


async def _beside(texts: Sequence[str], tokenise: Callable[[], T]) -> T:
    """Off the event loop where there is much to read."""
    if sum(len(text) if text.isascii() else 4 * len(text) for text in texts) > _INLINE_BYTES:
        return await asyncio.to_thread(tokenise)
    return tokenise()


def _clipped(documents: Sequence[Content], side: TextSide, tokens: int) -> tuple[Content, ...]:
    """Their texts, which a prompt has end to end, as one."""

    def clipped(texts: tuple[str, ...]) -> tuple[str, ...]:
        return (side.tokenizer.clip("".join(texts), tokens),) if texts else ()

    return tuple(replace(each, texts=clipped(each.texts)) for each in documents)


def settled(outcomes: list[T | QvlError], on_error: OnError) -> list[T | QvlError]:
    """Raises the first error, unless errors are to be skipped."""
    if on_error == "fail":
        for each in outcomes:
            if isinstance(each, QvlError):
                raise each
    return outcomes
