"""The POST routes: one row each, and the four ways to answer them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

from qvl.engine.api import counts
from qvl.engine.api.service import Service
from qvl.engine.config import Limits
from qvl.engine.dialects import cohere, openai, rerank, search, tei, vectors, vllm, voyage
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    paths: tuple[str, ...]
    summary: str
    body: type[Body]
    response: Any
    """A type, or a tuple of those between which the body chooses."""
    answer: Answer
    example: dict[str, object]


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


OPERATIONS = (
    Operation(
        paths=("/v1/embeddings", "/embeddings"),
        summary="Embed texts, images, videos or mixtures (OpenAI's, vLLM's, Jina's or Voyage's shape)",
        body=openai.EmbeddingsBody,
        response=openai.EmbeddingsResponse,
        answer=embed(openai.EmbeddingsBody, openai.parse, openai.render),
        example={"input": ["a red bicycle", {"image": "https://example.com/bicycle.jpg"}]},
    ),
    Operation(
        paths=("/v1/rerank",),
        summary="Order documents by relevance to a query (Jina's, vLLM's, Voyage's or Cohere v1's shape)",
        body=rerank.RerankBody,
        response=(rerank.RerankResponse, voyage.RerankResponse),
        answer=rank(rerank.RerankBody, rerank.parse, rerank.render),
        example={
            "query": "a red bicycle",
            "documents": ["a bike", {"image": "https://example.com/b.jpg"}],
            "top_n": 1,
        },
    ),
    Operation(
        paths=("/v2/embed",),
        summary="Embed texts, images or mixtures (Cohere v2's shape)",
        body=cohere.EmbedBody,
        response=cohere.EmbedResponse,
        answer=embed(cohere.EmbedBody, cohere.parse_embed, cohere.render_embed),
        example={
            "texts": ["a red bicycle"],
            "input_type": "search_query",
            "embedding_types": ["float", "int8"],
        },
    ),
    Operation(
        paths=("/v1/embed",),
        summary="Embed texts or images (Cohere v1's shape)",
        body=cohere.EmbedBody,
        response=(cohere.FloatsResponse, cohere.EmbedResponse),
        answer=embed(cohere.EmbedBody, cohere.parse_embed, cohere.render_embed_v1),
        example={"texts": ["a red bicycle"], "input_type": "search_query"},
    ),
    Operation(
        paths=("/v2/rerank",),
        summary="Order documents by relevance to a query (Cohere v2's shape)",
        body=cohere.RerankBody,
        response=cohere.RerankResponse,
        answer=rank(cohere.RerankBody, cohere.parse_rerank, cohere.render_rerank),
        example={"query": "a red bicycle", "documents": ["a bike", "a car"], "top_n": 1},
    ),
    Operation(
        paths=("/rerank",),
        summary="Order documents by relevance to a query (vLLM's or TEI's shape)",
        body=vllm.RerankBody,
        response=(vllm.RerankResponse, tei.RerankResponse),
        answer=rank(vllm.RerankBody, vllm.parse_rerank, vllm.render_rerank),
        example={"query": "a red bicycle", "documents": ["a bike", "a car"]},
    ),
    Operation(
        paths=("/embed", "/"),
        summary="Embed texts or mixtures (TEI's shape)",
        body=tei.EmbedBody,
        response=tei.EmbedResponse,
        answer=embed(tei.EmbedBody, tei.parse_embed, tei.render_embed),
        example={"inputs": ["a red bicycle"], "prompt_name": "query"},
    ),
    Operation(
        paths=("/score", "/v1/score"),
        summary="Score one query with N documents, or N pairs (vLLM's shape)",
        body=vllm.ScoreBody,
        response=vllm.ScoreResponse,
        answer=score(vllm.ScoreBody, vllm.parse_score, vllm.render_score),
        example={"queries": "a red bicycle", "documents": ["a bike", "a car"]},
    ),
    Operation(
        paths=("/v1/multimodalembeddings",),
        summary="Embed mixtures of texts, images and videos (Voyage's shape)",
        body=voyage.EmbedBody,
        response=voyage.EmbedResponse,
        answer=embed(voyage.EmbedBody, voyage.parse, voyage.render),
        example={"inputs": [{"content": [{"type": "text", "text": "a red bicycle"}]}]},
    ),
    Operation(
        paths=("/v1/search",),
        summary="Recall from the server's index by the query's vector, then rerank",
        body=search.SearchBody,
        response=search.SearchResponse,
        answer=find,
        example={"query": "a red bicycle", "top_n": 3, "filter": {"year": {"gte": 2020}}},
    ),
)
