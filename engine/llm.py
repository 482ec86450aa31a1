"""One model in one vLLM engine: prompts in, numpy rows out, and word of its death."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from qvl.engine import compat
from qvl.engine.adapters import Adapter
from qvl.engine.answers import AnswerCache, Row
from qvl.engine.checkpoint import Checkpoint
from qvl.engine.config import EngineConfig
from qvl.engine.core import Asked, Core
from qvl.engine.errors import QvlError, TooLarge, Unavailable
from qvl.engine.failure import not_started, starting
from qvl.engine.media.arena import Arena
from qvl.engine.media.block import Block
from qvl.engine.prepare import Ready
from qvl.engine.protocol import ModelCard, Priority
from qvl.engine.text_side import TextSide, load_text_side

_RANKS: dict[Priority, int] = {"interactive": 0, "batch": 1}
"""vLLM's scheduler takes the least first, and among equals the one that came first."""
_POLL_SECONDS = 5.0
"""Between two questions whether the engine process still answers, at most; that it has died is told at once.
Each wakes both processes from their sleep."""
_AT_ONCE = 64
"""Items of one request that are sent before other requests, and questions after health, get a turn."""


class _Sent(NamedTuple):
    key: bytes
    """Of its row among the answers."""
    asked: Asked

    @property
    def answer(self) -> asyncio.Future[Any]:
        return self.asked.answer

    @property
    def succeeded(self) -> bool:
        return self.answer.done() and not self.answer.cancelled() and self.answer.exception() is None


class LLM:
    """Owns an `AsyncLLM` and its engine process."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        text: TextSide,
        engine: Any,
        arena: Arena,
        answers: AnswerCache,
        adapters: Sequence[Adapter],
        stall_seconds: float,
    ) -> None:
        self.checkpoint = checkpoint
        self._adapters = compat.lora_requests(adapters)
        self.text = text
        self._engine = engine
        self._core = Core(engine.engine_core)
        self._arena = arena
        self._answers = answers
        self._stall_seconds = stall_seconds or float("inf")
        self._poll_seconds = min(_POLL_SECONDS, self._stall_seconds / 4)
        self._silent_seconds = 0.0
        self._dtype = str(engine.model_config.dtype).removeprefix("torch.")
        self._stopped = False

    @classmethod
    def load(
        cls,
        config: EngineConfig,
        checkpoint: Checkpoint,
        arena: Arena,
        answers: AnswerCache,
        *,
        shared: bool,
        adapters: Sequence[Adapter] = (),
    ) -> LLM:
        """Blocks for the start-up (tens of seconds). Raises CheckpointError, NotStarted if it may pass."""
        commit = f", commit {checkpoint.revision}" if checkpoint.revision else ""
        logging.getLogger("qvl.engine").info("loading %s (%s%s)", checkpoint.name, checkpoint.role, commit)
        from vllm.v1.engine.async_llm import AsyncLLM

        text = load_text_side(checkpoint)
        args = compat.engine_args(
            config, checkpoint, text, pixels=str(arena.path), shared=shared, adapters=adapters
        )
        with starting(f"{checkpoint.name}: the engine did not start"):
            # Not through a name of this frame: a failed import inside vLLM, which keeps its traceback, would
            # keep the engine with it beyond the interpreter's modules.
            return cls(
                checkpoint,
                text,
                AsyncLLM.from_engine_args(args),
                arena,
                answers,
                adapters,
                config.stall_seconds,
            )

    async def open(self) -> None:
        """Before it is asked. Raises NotStarted when the engine has died, CheckpointError when it refuses
        an adapter."""
        failed = f"{self.checkpoint.name}: the engine did not start"
        try:
            task = "embed" if self.checkpoint.role == "embedder" else "classify"
            await self._core.open(self._engine.input_processor, task)
            for name, adapter in self._adapters.items():
                failed = f"--lora {name}: the engine refused it"
                await self._core.told(self._engine.add_lora(adapter))
        except Exception as error:  # the engine process names its own errors in its own words
            raise not_started(failed, error) from error

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may call it: the checkpoint's names, then its adapters."""
        return (*self.checkpoint.names, *self._adapters)

    def called(self, name: str | None) -> str:
        """What answers a request for `name`."""
        return name if name in self._adapters else self.checkpoint.name

    @property
    def cards(self) -> list[ModelCard]:
        return [
            ModelCard(
                id=name,
                role=self.checkpoint.role,
                dimensions=self.checkpoint.dimensions,
                max_length=self.text.tokenizer.max_length,
                dtype=self._dtype,
                revision=self.checkpoint.revision,
            )
            for name in self.names
        ]

    async def run(
        self, inputs: Sequence[Ready], priority: Priority = "interactive", name: str | None = None
    ) -> list[Row | QvlError]:
        """A row of float32 for each input, in order, or what is wrong with that one; by the adapter `name`.

        They enter the scheduler in order, so that later ones hit the KV blocks of the first, and are waited
        for without a task for each. The engine failing, or the caller going away, ends them all.
        """
        adapter, rank = self._adapters.get(name or ""), _RANKS[priority]
        sent: list[Row | QvlError | _Sent] = []
        try:
            for number, item in enumerate(inputs, 1):
                sent.append(await self._sent(item, adapter, rank))
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            return [self._row(each, await each.answer) if isinstance(each, _Sent) else each for each in sent]
        except BaseException:
            under_way = [each for each in sent if isinstance(each, _Sent)]
            await self._core.give_up(each.asked for each in under_way)
            for each in under_way:
                if each.succeeded:  # whoever asks again goes on from there
                    self._row(each, each.answer.result())
            raise

    async def _sent(self, item: Ready, adapter: Any, rank: int) -> Row | QvlError | _Sent:
        """On its way, its pixels the engine's; unless its row is known or it is too large for the engine."""
        key = self._answers.key(item, adapter.lora_name if adapter else None)
        if (known := self._answers.find(key)) is not None:
            return known
        try:
            blocks = await self._arena.pin(item.visuals) if item.visuals else []
            try:
                if self._stopped:  # perhaps while it waited for room for its pixels
                    raise Unavailable("the engine is stopping", code="draining")
                places = [block.place for block in blocks]
                asked = await self._core.send(item.prompt, item.visuals, places, adapter, rank)
            except BaseException as error:  # only one that was cancelled may be under way
                self._unpin(blocks, given_up=isinstance(error, asyncio.CancelledError))
                raise
        except TooLarge as error:
            return error.bare()
        if blocks:
            asked.answer.add_done_callback(partial(self._answered, blocks))
            item.visuals = ()
        return _Sent(key, asked)

    def _row(self, sent: _Sent, answer: Any) -> Row | QvlError:
        row: Row = answer.float().numpy().reshape(-1)
        if not math.isfinite(row.dot(row)):
            return QvlError("the model gave a number that is not finite; try bfloat16", code="not_finite")
        self._answers.keep(sent.key, row)
        return row

    def _answered(self, blocks: list[Block], answer: asyncio.Future[Any]) -> None:
        self._unpin(blocks, given_up=answer.cancelled() or answer.exception() is not None)

    def _unpin(self, blocks: list[Block], *, given_up: bool) -> None:
        """One that was given up may still be read, unless there is no engine any more."""
        if given_up and self._core.failure is None:
            self._core.when_left(partial(self._arena.unpin, blocks))
        else:
            self._arena.unpin(blocks)

    @property
    def failure(self) -> str | None:
        """What has befallen the engine process, unless it was stopped."""
        if self._stopped:
            return None
        engine = f"the engine process of {self.checkpoint.name}"
        if self._engine.errored or self._core.failure:
            return f"{engine} has died"
        if self._silent_seconds >= self._stall_seconds:
            return f"{engine} hangs: no sign of life for {self._stall_seconds:g} s (--stall-seconds)"
        return None

    async def died(self) -> str:
        """Returns once the engine process is gone, or hangs, without having been stopped.

        Between any two steps it answers a question. Its silence is counted in polls, not by a clock: after a
        sleep of the whole machine nothing hangs.
        """
        answer = asyncio.ensure_future(self._engine.is_sleeping())
        ended = asyncio.ensure_future(self._core.ended.wait())
        try:
            while (failure := self.failure) is None:
                if self._stopped:
                    await asyncio.sleep(self._poll_seconds)
                    continue
                await asyncio.wait([ended], timeout=self._poll_seconds)
                self._silent_seconds += self._poll_seconds
                if answer.done() and not self._stopped:
                    answer.exception()  # that of a dead engine: `failure` tells it
                    self._silent_seconds = 0.0
                    answer = asyncio.ensure_future(self._engine.is_sleeping())
            return failure
        finally:
            answer.cancel()
            ended.cancel()

    async def stop(self) -> None:
        """Ends the engine process; harmless twice."""
        engine, self._engine, self._stopped = self._engine, None, True
        if engine is None:
            return
        self._core.close()
        await compat.shut_down(engine)
