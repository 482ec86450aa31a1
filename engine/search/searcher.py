"""Two stages: the embedder's vector recalls from the index, the reranker orders what was recalled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakKeyDictionary

from qvl.engine.dialects.search import contents, query_instruction
from qvl.engine.errors import NotFound, Unprocessable
from qvl.engine.protocol import (
    Content,
    EmbedRequest,
    EmbedResult,
    Hit,
    ModelCard,
    RerankRequest,
    RerankResult,
    SearchRequest,
    SearchResult,
    Usage,
)
from qvl.engine.search import canary
from qvl.engine.search.index import Index, Layout

NOT_SERVED = "no reranker is served: the results are in the order of their vectors"
NOT_WANTED = "rerank is false: the results are in the order of their vectors"

_agreed: WeakKeyDictionary[Index, tuple[Layout, str]] = WeakKeyDictionary()
"""What was found to be of one model; another is asked for after either has changed."""


class Models(Protocol):
    async def embed(self, request: EmbedRequest) -> EmbedResult: ...

    async def rerank(self, request: RerankRequest) -> RerankResult: ...

    def models(self) -> list[ModelCard]: ...


@dataclass(frozen=True, slots=True)
class Searcher:
    models: Models
    index: Index
    timed: Callable[[], AbstractContextManager[None]] = nullcontext
    """Around the look into the index."""
    threads: Executor | None = None
    """Where it waits for the index (None: among all that this process has off its event loop)."""

    async def search(self, request: SearchRequest) -> SearchResult:
        """Raises QvlError; an item that the reranker cannot read has its error in the result."""
        note = self._not_reranked(request)
        model, hits, usage = await self._recalled(request)
        result = SearchResult(
            hits=tuple(hits[: request.top_n]),
            model=model,
            reranker=None,
            note=note,
            candidates=len(hits),
            usage=usage,
        )
        return result if note or not hits else await self._reranked(request, hits, result)

    def _not_reranked(self, request: SearchRequest) -> str | None:
        if request.rerank is False:
            return NOT_WANTED
        if any(card.role == "reranker" for card in self.models.models()):
            return None
        if request.rerank or request.reranker:
            raise NotFound(
                "no reranker is served here; leave `rerank` out for the order of the vectors",
                param="rerank" if request.rerank else "rerank_model",
                code="model_not_found",
            )
        return NOT_SERVED

    async def _recalled(self, request: SearchRequest) -> tuple[str, list[Hit], Usage]:
        loop = asyncio.get_running_loop()
        layout = await loop.run_in_executor(self.threads, lambda: self.index.layout)
        wanted = EmbedRequest(
            input=(request.query,),
            model=request.model,
            instruction=query_instruction(request.instruction),
            dimensions=self._dimensions(layout.dimensions if layout else None),
            priority=request.priority,
        )
        embedded = await self.models.embed(wanted)
        if layout is None:
            return embedded.model, [], embedded.usage
        await self._agreed(layout, embedded.model, request)
        with self.timed():
            hits = await loop.run_in_executor(
                self.threads, self.index.find, embedded.vectors[0], request.recall, request.where
            )
        return embedded.model, hits, embedded.usage

    async def _agreed(self, layout: Layout, model: str, request: SearchRequest) -> None:
        """That the index is of this model, asked once. Raises Unprocessable."""
        if _agreed.get(self.index) == (layout, model):
            return
        if what := await self._strange(layout, model, request):
            raise Unprocessable(
                f"the index holds vectors of {layout.model!r}, and the embedder here is {model!r}: {what}",
                code="index_mismatch",
            )
        _agreed[self.index] = layout, model

    async def _strange(self, layout: Layout, model: str, request: SearchRequest) -> str | None:
        told = Content(texts=(canary.CANARY,))
        asked = EmbedRequest(input=(told,), model=model, priority=request.priority)
        vector = (await self.models.embed(asked)).vectors[0]
        what = canary.strange(layout.canary, canary.written(vector))
        way = "serve that model, or make the index again"
        if model != layout.model and any(card.id == layout.model for card in self.models.models()):
            way = "ask for the other, which is served here too, by `model`"
        return what and f"{what}; {way}"

    def _dimensions(self, kept: int | None) -> int | None:
        """Those of the index, unless no model here has so many: then its name tells what is wrong."""
        widest = max((card.dimensions for card in self.models.models() if card.role == "embedder"), default=0)
        return kept if kept is not None and kept <= widest else None

    async def _reranked(
        self, request: SearchRequest, hits: Sequence[Hit], recalled: SearchResult
    ) -> SearchResult:
        asked = RerankRequest(
            query=request.query,
            documents=await asyncio.to_thread(contents, [hit.item for hit in hits]),
            model=request.reranker,
            instruction=request.instruction,
            on_error="skip",
            priority=request.priority,
        )
        try:
            ranked = await self.models.rerank(asked)
        except NotFound as error:
            error.param = "rerank_model"
            raise
        return replace(
            recalled,
            hits=tuple(_merged(hits, ranked)[: request.top_n]),
            reranker=ranked.model,
            note=_unread(ranked),
            usage=recalled.usage + ranked.usage,
        )


def _merged(hits: Sequence[Hit], ranked: RerankResult) -> list[Hit]:
    """In the reranker's order, around those that it could not read, which stay where vectors put them."""
    scores, best = ranked.scores.tolist(), iter(ranked.order())
    return [
        replace(hit, error=ranked.errors[place])
        if place in ranked.errors
        else replace(hits[i := next(best)], score=scores[i])
        for place, hit in enumerate(hits)
    ]


def _unread(ranked: RerankResult) -> str | None:
    if not ranked.errors:
        return None
    first = ranked.errors[min(ranked.errors)]
    return (
        f"the reranker could not read {len(ranked.errors)} of {len(ranked.logits)} candidates, which stay "
        f"where their vectors put them; the first: {first.message} ({first.code})"
    )
