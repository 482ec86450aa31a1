"""One replica through its life, as the HTTP side sees it: starting, ready, draining, dead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from qvl.engine.api.service import Service
from qvl.engine.errors import Unavailable
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
_TAKEN: ContextVar[bool] = ContextVar("taken", default=False)
"""Whether what runs is in flight already."""


class Managed(Service, Protocol):
    """A service that can be stopped and can die; `Engine` is one."""

    @property
    def held(self) -> int:
        """Estimated tokens in progress."""
        ...

    async def stop(self) -> None: ...

    async def died(self) -> str: ...


class Replica:
    """Stands for an engine before it is there, and refuses work once it should get no more."""

    def __init__(self, metrics: Metrics, announced: Callable[[], bool] = lambda: True) -> None:
        """`announced`: whether others that answer at the same port have been ready; requests do not wait for
        them, only whoever asks after its health."""
        self.metrics = metrics
        self._announced = announced
        self._engine: Managed | None = None
        self._refusing: str | None = "starting"
        self._leaving = False
        self._running: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def serve(self, engine: Managed) -> None:
        self._engine, self._refusing = engine, None
        self.metrics.ready(True)

    def leave(self) -> None:
        """Say that no requests should come any more; those that do are answered."""
        self._leaving = True
        self.metrics.ready(False)

    def drain(self) -> None:
        """Refuse new requests; those in flight go on."""
        self._refusing = "draining"
        self.metrics.ready(False)

    def cut(self, reason: str) -> None:
        """Refuse new requests, and end those in flight with a 503."""
        self._refusing = reason
        self.metrics.ready(False)
        for work in self._running:
            if work.when() is None:  # not cut already
                work.reschedule(asyncio.get_running_loop().time())

    @property
    def held(self) -> int:
        """Estimated tokens in progress."""
        return self._engine.held if self._engine else 0

    async def idle(self) -> None:
        """Returns when nothing is in flight."""
        await self._idle.wait()

    def embed(self, request: EmbedRequest) -> Coroutine[Any, Any, EmbedResult]:
        return self._run(lambda engine: engine.embed(request))

    def rerank(self, request: RerankRequest) -> Coroutine[Any, Any, RerankResult]:
        return self._run(lambda engine: engine.rerank(request))

    def score(self, requests: tuple[RerankRequest, ...]) -> Coroutine[Any, Any, list[RerankResult]]:
        return self._run(lambda engine: engine.score(requests))

    def tokenize(
        self, request: EmbedRequest, special: bool | None
    ) -> Coroutine[Any, Any, tuple[list[list[Token]], int]]:
        return self._run(lambda engine: engine.tokenize(request, special))

    async def health(self) -> Health:
        if self._refusing is not None or self._engine is None:
            return Health(ready=False, reason=self._refusing or "starting")
        if self._leaving:
            return Health(ready=False, reason="draining")
        if not self._announced():
            return Health(ready=False, reason="starting")
        return await self._engine.health()

    def models(self) -> list[ModelCard]:
        """Raises Unavailable while they load: none would be read as a server without models."""
        return self._loaded().models()

    async def whole(self, work: Callable[[], Awaitable[T]]) -> T:
        """A drain that comes between two steps of `work` waits for it, and refuses none of them."""
        if _TAKEN.get():
            return await work()
        if self._refusing is not None:
            raise self._refusal()
        self._idle.clear()
        limit, taken = asyncio.timeout(None), _TAKEN.set(True)
        try:
            async with limit:
                self._running.add(limit)
                return await work()
        except TimeoutError:
            if not limit.expired():
                raise
            raise Unavailable(
                f"{self._refusing}; ask again, or another replica", code="engine_stopped"
            ) from None
        finally:
            self._running.discard(limit)
            if not self._running:
                self._idle.set()
            _TAKEN.reset(taken)

    def _run(self, ask: Callable[[Managed], Awaitable[T]]) -> Coroutine[Any, Any, T]:
        return self.whole(lambda: ask(self._loaded()))

    def _loaded(self) -> Managed:
        if self._engine is None:
            raise self._refusal()
        return self._engine

    def _refusal(self) -> Unavailable:
        reason = self._refusing or "starting"
        code = reason if reason in ("starting", "draining") else "engine_stopped"
        return Unavailable(f"this replica takes no requests: {reason}", code=code)
