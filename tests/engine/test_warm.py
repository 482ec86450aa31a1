"""A replica's own first requests, on the real engine."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from qvl.engine import Engine, EngineConfig, warm
from qvl.engine.config import Limits
from qvl.engine.errors import NotStarted, Unavailable
from qvl.engine.llm import LLM
from qvl.engine.prepare import Ready
from qvl.engine.protocol import Content
from tests.conftest import Pair
from tests.parity.conftest import vllm_warnings

pytestmark = pytest.mark.engine


async def warmed(models: Sequence[LLM], engine: Engine, items: tuple[Content, ...]) -> list[int]:
    """Tokens of each prompt that the models were asked for."""
    seen: list[int] = []

    class Seen:
        def __init__(self, model: LLM) -> None:
            self.checkpoint, self.text, self.died = model.checkpoint, model.text, model.died
            self._model = model

        async def run(self, inputs: Sequence[Ready]) -> None:
            seen.extend(len(each.prompt.ids) for each in inputs)
            rows = await self._model.run(inputs)
            assert not any(isinstance(row, Exception) for row in rows)

    await warm.warm_up([Seen(each) for each in models], engine._preparer, items)  # type: ignore[misc]
    return seen


def test_each_model_fills_steps_and_one_that_hangs_is_told(pair: Pair) -> None:
    config = EngineConfig(
        embedder=str(pair.embedder),
        reranker=str(pair.reranker),
        max_batched_tokens=2048,
        enforce_eager=True,
    )

    async def run() -> None:
        with vllm_warnings():
            engine = await Engine.start(config)
        async with engine:
            models = list(engine._models.values())
            items = warm.full_steps(config)
            seen = await warmed(models, engine, items)
            assert len(seen) == 2 * len(items)
            pictures = [tokens for tokens in seen if tokens > 42**2]
            assert len(pictures) == len(seen) - 2
            assert sum(pictures) > 2 * len(models) * config.max_batched_tokens
            [hanging] = models[0]._engine.engine_core.resources.engine_manager.processes
            models[0]._stall_seconds, models[0]._poll_seconds = 2, 0.5
            os.kill(hanging.pid, signal.SIGSTOP)
            try:
                with pytest.raises(NotStarted, match=r"hangs: no sign of life .* over its first requests"):
                    await warm.warm_up(models, engine._preparer, (Content(texts=("another",)),))
            finally:
                os.kill(hanging.pid, signal.SIGCONT)
            [dying] = models[1]._engine.engine_core.resources.engine_manager.processes
            os.kill(dying.pid, signal.SIGKILL)
            with pytest.raises(NotStarted, match=r"has died, over its first requests"):
                await warm.warm_up(models[1:], engine._preparer, (Content(texts=("a third",)),))

    asyncio.run(run())


def test_what_is_not_the_engine_s_end_is_told_at_once() -> None:
    class Broken:
        async def embed(self, request: object, side: object) -> None:
            raise Unavailable("no decoding process can be started", code="decoders_died")

    async def died() -> str:
        return await asyncio.get_running_loop().create_future()

    model: Any = SimpleNamespace(checkpoint=SimpleNamespace(role="embedder", name="m"), text=None, died=died)
    broken: Any = Broken()
    with pytest.raises(Unavailable, match="no decoding process"):
        asyncio.run(asyncio.wait_for(warm.warm_up([model], broken, (warm.TEXT,)), 60))


def test_where_no_pictures_are_taken_none_are_asked() -> None:
    limits = Limits(images=0)
    assert warm.full_steps(EngineConfig(embedder="x", limits=limits)) == (warm.TEXT,)
