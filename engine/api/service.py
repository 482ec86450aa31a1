"""What the HTTP side needs of an engine; `Engine` has it, and so has a test's stand-in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from qvl.engine.metrics import Metrics
from qvl.engine.protocol import (
    EmbedRequest,
    EmbedResult,
    Health,
    ModelCard,
    RerankRequest,
    RerankResult,
    Token,
)

T = TypeVar("T")


class Service(Protocol):
    metrics: Metrics

    async def embed(self, request: EmbedRequest) -> EmbedResult: ...

    async def rerank(self, request: RerankRequest) -> RerankResult: ...

    async def score(self, requests: tuple[RerankRequest, ...]) -> list[RerankResult]: ...

    async def tokenize(self, request: EmbedRequest, special: bool | None) -> tuple[list[list[Token]], int]:
        """Of each item's text, with or without the tokenizer's own tokens; None: of its whole prompt. And how
        long the model's prompts may be."""
        ...

    async def whole(self, work: Callable[[], Awaitable[T]]) -> T:
        """Runs `work`. What it asks of this service counts as one request, let in or refused at its start."""
        ...

    async def health(self) -> Health: ...

    def models(self) -> list[ModelCard]: ...
