"""The models of a running server, in the engine's own terms, for an index that lies here."""

from __future__ import annotations

from typing import cast

from qvl.engine.client import AsyncClient
from qvl.engine.client.items import written
from qvl.engine.protocol import (
    Content,
    EmbedRequest,
    EmbedResult,
    ModelCard,
    RerankRequest,
    RerankResult,
)


class Served:
    def __init__(self, client: AsyncClient, cards: list[ModelCard]) -> None:
        self._client, self._cards = client, cards

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        queries = cast("tuple[Content, ...]", request.input)  # a search asks with no token ids
        return await self._client.embed_result(
            [written(query) for query in queries],
            instruction=request.instruction,
            dimensions=request.dimensions,
            model=request.model,
        )

    async def rerank(self, request: RerankRequest) -> RerankResult:
        return await self._client.rerank_result(
            written(request.query),
            [written(document) for document in request.documents],
            instruction=request.instruction,
            model=request.model,
            on_error=request.on_error,
        )

    def models(self) -> list[ModelCard]:
        return self._cards
