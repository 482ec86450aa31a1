"""Who answers a job's lines: an engine in this process, or a running server."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from qvl.engine.client import AsyncClient, Policy
from qvl.engine.config import EngineConfig, MediaConfig
from qvl.engine.errors import NotFound, Overloaded, Unavailable
from qvl.engine.jobs.native import contents, pair
from qvl.engine.jobs.progress import say
from qvl.engine.jobs.settings import JobConfig, JobError
from qvl.engine.port import leave
from qvl.engine.protocol import EmbedRequest, EmbedResult, ModelCard, RerankRequest, RerankResult
from qvl.engine.start import start_engine

if TYPE_CHECKING:
    from qvl.engine.engine import Engine

Q = TypeVar("Q")
R = TypeVar("R")

UNREACHABLE_SECONDS = 600.0
"""How long a server may be away in the middle of a job, or load its models before."""
_LOOK_SECONDS = 1.0


class Answers(Protocol):
    """Items are native JSON items; an item's own error is in the result, all others are raised."""

    async def embed(
        self, items: list[Any], instruction: str | None, dimensions: int | None
    ) -> EmbedResult: ...

    async def rerank(self, query: Any, documents: list[Any], instruction: str | None) -> RerankResult: ...

    async def post(self, path: str, body: bytes) -> bytes:
        """What a route answers."""
        ...


class FromServer:
    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def embed(self, items: list[Any], instruction: str | None, dimensions: int | None) -> EmbedResult:
        return await self._client.embed_result(
            items, instruction=instruction, dimensions=dimensions, on_error="skip"
        )

    async def rerank(self, query: Any, documents: list[Any], instruction: str | None) -> RerankResult:
        return await self._client.rerank_result(query, documents, instruction=instruction, on_error="skip")

    async def post(self, path: str, body: bytes) -> bytes:
        return await self._client.post(path, body)


class FromEngine:
    """What is too much at once for the engine waits: the job's own requests alone are in its way.

    Raises Unavailable once the engine has died, or hangs, as `died` says then.
    """

    def __init__(self, engine: Engine, died: asyncio.Future[str]) -> None:
        self._engine, self._died = engine, died

    async def embed(self, items: list[Any], instruction: str | None, dimensions: int | None) -> EmbedResult:
        request = EmbedRequest(
            input=contents(items), instruction=instruction, dimensions=dimensions, on_error="skip"
        )
        return await self._answered(self._engine.embed, request)

    async def rerank(self, query: Any, documents: list[Any], instruction: str | None) -> RerankResult:
        parsed, candidates = pair(query, documents)
        request = RerankRequest(query=parsed, documents=candidates, instruction=instruction, on_error="skip")
        return await self._answered(self._engine.rerank, request)

    async def post(self, path: str, body: bytes) -> bytes:
        from qvl.engine.api.answering import Backend
        from qvl.engine.api.operations import OPERATIONS

        operation = next((each for each in OPERATIONS if path in each.paths), None)
        if operation is None:
            raise NotFound(f"there is no route {path}", param="url", code="route_not_found")
        backend = Backend(self._engine, self._engine.config.limits)
        return await self._answered(partial(operation.answer, backend), body)

    async def _answered(self, ask: Callable[[Q], Awaitable[R]], request: Q) -> R:
        while True:
            asked = asyncio.ensure_future(ask(request))
            try:
                await asyncio.wait((asked, self._died), return_when=asyncio.FIRST_COMPLETED)
                if not asked.done():
                    raise Unavailable(self._died.result(), code="engine_dead")
                return asked.result()
            except Overloaded:
                # Not its `retry_after`, which spares a server many callers: the engine must not run dry.
                await asyncio.sleep(_LOOK_SECONDS)
            finally:
                asked.cancel()


async def settings_of(job: JobConfig, config: EngineConfig | None, role: str | None) -> dict[str, Any]:
    """What the answers depend on apart from the request; says so when there is nobody to ask."""
    if job.url is None:
        if config is None:
            raise JobError(f"no model: give --{role or 'embedder'} a checkpoint, or --url a running server")
        models = [model for model in (*config.models, config.embedder, config.reranker) if model]
        quantization = config.quantization and (
            f"{config.quantization}, the vision tower {'too' if config.quantize_vision else 'left'}"
        )
        pixels = {"min_pixels": config.media.min_pixels, "max_pixels": config.media.max_pixels}
        # Not the models' own: jobs that began before there were these go on.
        chosen = {name: value for name, value in pixels.items() if value != getattr(MediaConfig, name)}
        return {"model": models, "dtype": config.dtype, "quantization": quantization, **chosen}
    cards = await models_of(job.url, job.key)
    if role is None:
        return {"model": sorted(card.id for card in cards)}
    card = next((card for card in cards if card.role == role), None)
    if card is None:
        raise JobError(f"the server at {job.url} has no {role}")
    # A name stays when a server comes back with another model of it. Servers that are not ours say no more.
    told = {"dtype": card.dtype, "width": card.dimensions}
    return {"model": card.id} | {key: value for key, value in told.items() if value}


async def models_of(url: str, key: str | None) -> list[ModelCard]:
    """What a server has; one that is loading, stopping or full is waited for, as in the middle of a job.

    Raises Unavailable at once where no server is.
    """
    async with AsyncClient(url, key=key, policy=Policy(retries=0)) as client:
        began, told = time.monotonic(), False
        while True:
            try:
                return await client.models()
            except (Unavailable, Overloaded) as error:
                if error.code == "connection_lost" or time.monotonic() > began + UNREACHABLE_SECONDS:
                    raise
                pause = error.retry_after if isinstance(error, Overloaded) else _LOOK_SECONDS
                if not told:
                    say(f"waiting for the server at {url}: {error}")
            told = True
            await asyncio.sleep(pause)


@asynccontextmanager
async def answering(job: JobConfig, config: EngineConfig | None) -> AsyncIterator[Answers]:
    """The server, or an engine that is stopped at the end."""
    if job.url is not None:
        policy = Policy(
            items=job.batch, concurrency=job.in_flight, deadline=UNREACHABLE_SECONDS, retries=1_000_000
        )
        async with AsyncClient(job.url, key=job.key, policy=policy) as client:
            yield FromServer(client)
    elif config is not None:
        say("loading the model")
        async with await _loaded(config) as engine:
            died = asyncio.ensure_future(engine.died())
            try:
                yield FromEngine(engine, died)
            finally:
                died.cancel()


async def _loaded(config: EngineConfig) -> Engine:
    """When the job is stopped before it is there, this does not return: nothing has been answered yet, and a
    model half loaded sits in a thread that cannot be interrupted."""
    try:
        return await start_engine(config)
    except asyncio.CancelledError:
        say("stopped while the model was loading")
        leave(128 + signal.SIGTERM)
