"""The ways to answer a POST: embed, rank, score, tokenise and find."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar

from qvl.engine.api import counts
from qvl.engine.api.service import Service
from qvl.engine.config import Limits
from qvl.engine.dialects import search, tokenize, vectors
from qvl.engine.dialects.fields import Body, decode
from qvl.engine.errors import NotFound, TooLarge
from qvl.engine.protocol import EmbedRequest, EmbedResult, RerankRequest, RerankResult
from qvl.engine.response import dump, encode, encode_apart
from qvl.engine.search.index import Index
from qvl.engine.search.searcher import Searcher

B = TypeVar("B", bound=Body)
INLINE_NUMBERS = 1 << 18
"""An answer of more vectors' components is written beside the event loop."""


@dataclass(frozen=True, slots=True)
class Backend:
    """What answers are made of."""

    service: Service
    limits: Limits
    index: Index | None = None
    """What `/v1/search` looks in."""
    threads: Executor | None = None
    """Of their own: who waits for an index that is busy keeps no thread from the other routes."""


Answer: TypeAlias = Callable[[Backend, bytes], Awaitable[bytes]]


def embed(
    body_type: type[B],
    parse: Callable[[B], EmbedRequest],
    render: Callable[[B, EmbedResult, vectors.Encode], object],
) -> Answer:
    async def answer(backend: Backend, raw: bytes) -> bytes:
        service = backend.service
        with service.metrics.stage("parse"):
            body = await _decoded(backend, body_type, raw, "items")
            request = parse(body)
        result = await service.embed(request)
        with service.metrics.stage("render"):
            if result.vectors.size <= INLINE_NUMBERS:
                return dump(render(body, result, partial(encode, result.vectors)))
            written = partial(encode_apart, result.vectors)
            return await asyncio.to_thread(lambda: dump(render(body, result, written)))

    return answer


def rank(
    body_type: type[B],
    parse: Callable[[B], RerankRequest],
    render: Callable[[B, RerankRequest, RerankResult], object],
) -> Answer:
    async def answer(backend: Backend, raw: bytes) -> bytes:
        service = backend.service
        with service.metrics.stage("parse"):
            body = await _decoded(backend, body_type, raw, "documents")
            request = parse(body)
        result = await service.rerank(request)
        with service.metrics.stage("render"):
            return dump(render(body, request, result))

    return answer


def score(
    body_type: type[B],
    parse: Callable[[B], tuple[RerankRequest, ...]],
    render: Callable[[B, Sequence[RerankResult]], object],
) -> Answer:
    async def answer(backend: Backend, raw: bytes) -> bytes:
        service = backend.service
        with service.metrics.stage("parse"):
            body = await _decoded(backend, body_type, raw, "documents")
            requests = parse(body)
        one = len(requests) == 1
        results = [await service.rerank(requests[0])] if one else await service.score(requests)
        with service.metrics.stage("render"):
            return dump(render(body, results))

    return answer


async def tokenise(backend: Backend, raw: bytes) -> bytes:
    service = backend.service
    with service.metrics.stage("parse"):
        body = await _decoded(backend, tokenize.TokenizeBody, raw, "items")
        request, special = tokenize.parse(body)
    found, length = await service.tokenize(request, special)
    with service.metrics.stage("render"):
        return await asyncio.to_thread(lambda: dump(tokenize.render(body, found, length)))


async def find(backend: Backend, raw: bytes) -> bytes:
    service = backend.service
    with service.metrics.stage("parse"):
        body = await _decoded(backend, search.SearchBody, raw, "items")
        request = search.parse(body)
    if request.recall > (most := backend.limits.documents):
        raise TooLarge(
            f"{request.recall} candidates; at most {most} (--documents); ask for fewer",
            param="recall" if body.recall >= body.top_n else "top_n",
            code="too_many_documents",
        )
    if backend.index is None:
        raise NotFound("nothing to search: start the server with --index", code="no_index")
    recalling = partial(service.metrics.stage, "recall")
    searcher = Searcher(service, backend.index, recalling, backend.threads)
    result = await service.whole(lambda: searcher.search(request))
    with service.metrics.stage("render"):
        # Items may hold their pictures, which are read here only to be left out.
        return dump(await asyncio.to_thread(search.render, body, result))


async def _decoded(backend: Backend, body_type: type[B], raw: bytes, counted: counts.Counted) -> B:
    """The body, once its lists are known to be no longer than the limits."""
    await counts.check_raw(raw)
    body = decode(body_type, raw)
    counts.check(body, counted, backend.limits)
    return body
