"""The models of a running server, in the engine's own terms, for an index that lies here."""

from __future__ import annotations

from typing import Any

from qvl.engine.client import AsyncClient
from qvl.engine.protocol import (
    Content,
    EmbedRequest,
    EmbedResult,
    ModelCard,
    RerankRequest,
    RerankResult,
    Tokens,
)


class Served:
    def __init__(self, client: AsyncClient, cards: list[ModelCard]) -> None:
        self._client, self._cards = client, cards

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        return await self._client.embed_result(
            [_native(item) for item in request.input],
            instruction=request.instruction,
            dimensions=request.dimensions,
            model=request.model,
        )

    async def rerank(self, request: RerankRequest) -> RerankResult:
        return await self._client.rerank_result(
            _native(request.query),
            [_native(document) for document in request.documents],
            instruction=request.instruction,
            model=request.model,
            on_error=request.on_error,
        )

    def models(self) -> list[ModelCard]:
        return self._cards


def _native(item: Content | Tokens) -> dict[str, Any]:
    """The item as the wire has it; what came from JSON holds no bytes."""
    assert isinstance(item, Content)
    video = [list(each) if isinstance(each, tuple) else each for each in item.videos]
    fields = {
        "text": list(item.texts),
        "image": list(item.images),
        "video": video,
        "fps": item.fps,
        "max_frames": item.max_frames,
    }
    return {key: value for key, value in fields.items() if value} or {"text": ""}
