"""One replica: requests in, vectors and scores out.

async with await Engine.start(EngineConfig(embedder="Qwen/Qwen3-VL-Embedding-2B")) as engine:
    result = await engine.embed(EmbedRequest(input=(Content(texts=("a cat",)),)))
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from qvl.engine import adapters, checkpoint, compat, lengths, names, results, warm
from qvl.engine.admission import CALLER, Admission, cost
from qvl.engine.answers import AnswerCache, Row
from qvl.engine.checkpoint import Role
from qvl.engine.config import EngineConfig
from qvl.engine.errors import NotFound, QvlError
from qvl.engine.llm import LLM
from qvl.engine.load import load
from qvl.engine.media import Quota
from qvl.engine.metrics import Metrics
from qvl.engine.prepare import Outcome, Preparer, Ready, settled, usage
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
_AT_ONCE = 8
"""Pairs that are tokenised before other requests get a turn."""


class Engine:
    """Built by `start`; every method may be called from many tasks at once."""

    def __init__(
        self, config: EngineConfig, models: Sequence[LLM], preparer: Preparer, metrics: Metrics
    ) -> None:
        self.config = config
        self.metrics = metrics
        most = config.limits.queue_tokens
        self._admission = Admission(most, metrics.held("tokens", most))
        self._models: dict[Role, LLM] = {model.checkpoint.role: model for model in models}
        self._preparer = preparer
        self._stopped = False

    @classmethod
    async def start(cls, config: EngineConfig, metrics: Metrics | None = None) -> Self:
        """Load the models. Raises ConfigError or CheckpointError, whose message is one line."""
        from qvl.engine.media import MediaLoader
        from qvl.engine.media.arena import Arena
        from qvl.engine.media.source import check_roots

        check_roots(config.media.file_roots)
        metrics = metrics or Metrics()
        found = await asyncio.to_thread(checkpoint.find, config)
        adapted = await asyncio.to_thread(adapters.find, config.lora, found)
        await asyncio.to_thread(compat.prepare_environment)
        arena = Arena(config.media.media_memory, metrics.lookup("pixels"))
        media = MediaLoader(config.media, config.limits, metrics.lookup("media"), arena=arena)
        models: list[LLM] = []
        try:
            starts = []
            for each in found:
                own = [adapter for adapter in adapted if adapter.role == each.role]
                answers = AnswerCache(config.answer_cache, metrics.lookup("answers"))
                starts.append(
                    partial(LLM.load, config, each, arena, answers, shared=len(found) > 1, adapters=own)
                )
            await load(starts, models)
            await media.ready()
            preparer = Preparer(media, metrics)
            first = (warm.TEXT,) if compat.on_cpu() else await asyncio.to_thread(warm.full_steps, config)
            await warm.warm_up(models, preparer, first)
        except BaseException:
            await asyncio.gather(media.close(), *(model.stop() for model in models))
            raise
        finally:
            arena.close()
        return cls(config, models, preparer, metrics)

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """Raises QvlError; with `on_error="skip"` an item's own error is in the result instead."""
        model, request = self._embedder(request)
        width = results.width(request.dimensions, model.checkpoint.dimensions)
        with self._admission.admit(cost(request, self.config.media), request.priority):
            batch = await self._preparer.embed(request, model.text)
            read = usage(batch)
            answers = await self._run(model, batch, request)
        self.metrics.usage("embedder", len(batch), read, CALLER.get())
        return EmbedResult(
            model=model.called(request.model),
            vectors=results.matryoshka(results.rows(answers, model.checkpoint.dimensions, 0), width),
            usage=read,
            errors=results.errors(answers),
        )

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """Raises QvlError; a query's error always, a document's unless `on_error="skip"`."""
        model = self._model("reranker", request.model)
        with self._admission.admit(cost(request, self.config.media), request.priority):
            return await self._ranked(model, request)

    async def score(self, requests: tuple[RerankRequest, ...]) -> list[RerankResult]:
        """Pairs that one caller asks for at once, of one model: they come in together or not at all. Raises
        QvlError as `rerank` does; then none of them goes on."""
        model = self._model("reranker", requests[0].model)
        lengths.check(sum(map(lengths.of_pairs, requests)))
        with self._admission.admit(cost(requests, self.config.media), requests[0].priority):
            tasks: list[asyncio.Future[RerankResult]] = []
            quota = self._preparer.quota()
            try:
                for request in requests:
                    tasks.append(asyncio.ensure_future(self._ranked(model, request, quota)))
                    if len(tasks) % _AT_ONCE == 0:
                        await asyncio.sleep(0)
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    async def tokenize(self, request: EmbedRequest, special: bool | None) -> tuple[list[list[Token]], int]:
        """As `TextSide.split`, by the model that is named, or else the first; prompts are the embedder's.
        And how long a prompt of that model may be."""
        if embedder := self._models.get("embedder"):
            request = names.meant(request, _known(embedder))
        roles = [role for role, each in self._models.items() if request.model in _known(each)]
        model = self._model("embedder" if special is None else (*roles, *self._models)[0], request.model)
        with self._admission.admit(cost(request), request.priority):
            found = await asyncio.to_thread(model.text.split, request, special)
        return found, model.text.tokenizer.max_length

    async def whole(self, work: Callable[[], Awaitable[T]]) -> T:
        return await work()

    async def _ranked(self, model: LLM, request: RerankRequest, quota: Quota | None = None) -> RerankResult:
        batch = await self._preparer.rerank(request, model.text, quota)
        read = usage(batch)
        answers = await self._run(model, batch, request)
        self.metrics.usage("reranker", len(batch), read, CALLER.get())
        return RerankResult(
            model=model.called(request.model),
            logits=results.rows(answers, 1, -np.inf)[:, 0],
            usage=read,
            errors=results.errors(answers),
        )

    @property
    def held(self) -> int:
        """Estimated tokens in progress."""
        return self._admission.held

    async def embed_ids(self, request: EmbedRequest) -> list[list[int]]:
        """The token ids of each item's prompt, media widened; failed items are empty."""
        model, request = self._embedder(request)
        batch = await self._preparer.embed(request, model.text)
        return [each.prompt.ids if isinstance(each, Ready) else [] for each in batch]

    async def rerank_ids(self, request: RerankRequest) -> list[list[int]]:
        """The token ids of each (query, document) prompt, media widened; failed ones are empty."""
        batch = await self._preparer.rerank(request, self._model("reranker", request.model).text)
        return [each.prompt.ids if isinstance(each, Ready) else [] for each in batch]

    async def health(self) -> Health:
        if self._stopped:
            return Health(ready=False, reason="stopped")
        failures = [model.failure for model in self._models.values() if model.failure]
        return Health(ready=not failures, reason=failures[0] if failures else "ok")

    async def died(self) -> str:
        """Returns the reason once an engine process has died or hangs; else waits for ever."""
        waiting = [asyncio.ensure_future(model.died()) for model in self._models.values()]
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in waiting:
                task.cancel()

    def models(self) -> list[ModelCard]:
        return [replace(card, also=_known(model)) for model in self._models.values() for card in model.cards]

    async def stop(self) -> None:
        """Ends the engine processes; requests in flight fail with 503. Harmless twice."""
        if self._stopped:
            return
        self._stopped = True
        await self._preparer.close()
        await asyncio.gather(*(model.stop() for model in self._models.values()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _embedder(self, request: EmbedRequest) -> tuple[LLM, EmbedRequest]:
        """And the request by a name of its own."""
        if model := self._models.get("embedder"):
            request = names.meant(request, _known(model))
        return self._model("embedder", request.model), request

    def _model(self, role: Role, name: str | None) -> LLM:
        model = self._models.get(role)
        if model is None:
            raise NotFound(f"no {role} is served here", param="model", code="model_not_found")
        if name and name not in _known(model):
            raise names.unknown(role, name, model.names)
        return model

    async def _run(
        self, model: LLM, batch: list[Outcome], request: EmbedRequest | RerankRequest
    ) -> list[Row | QvlError]:
        ready = [each for each in batch if isinstance(each, Ready)]
        with self.metrics.stage("engine"), self.metrics.queued(model.checkpoint.role, len(ready)):
            rows = await model.run(ready, request.priority, request.model)
            answers = iter(settled(rows, request.on_error))
        return [next(answers) if isinstance(each, Ready) else each for each in batch]


def _known(model: LLM) -> tuple[str, ...]:
    """All that a request may call it."""
    return (*model.names, model.checkpoint.said, str(model.checkpoint.path))
