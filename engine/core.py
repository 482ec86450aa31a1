"""vLLM's engine process, asked past its front: prompts in, rows out.

`AsyncLLM.encode` checks, copies, registers and wraps each request by itself; of a short text's CPU that took
340 us here, where this takes 140. What is done once stays vLLM's: the start, adapters, signs of life, the
end, and the request that all others are copies of.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from qvl.engine.errors import QvlError, TooLarge, Unavailable
from qvl.engine.features import feature
from qvl.engine.media.block import Place
from qvl.engine.prompt import Prompt

if TYPE_CHECKING:
    from qvl.engine.media import Visual

T = TypeVar("T")

_DEAD = "the model's engine process has died"
_UNDER_WAY_SECONDS = 1.0
"""Of a step that was scheduled before an abort and runs after it: with asynchronous scheduling, or on several
devices."""
_log = logging.getLogger("qvl.engine")


class Asked(NamedTuple):
    """A request on its way."""

    id: str
    answer: asyncio.Future[Any]
    """Of a tensor on the CPU. QvlError: the engine gave the input up; Unavailable: it has ended."""


class Core:
    """Belongs to one event loop, from `open` to `close`."""

    def __init__(self, client: Any) -> None:
        """`client`: an AsyncLLM's `engine_core`, which nothing else asks for answers."""
        self._client = client
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._left: list[Callable[[], None]] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self.failure: str | None = None
        """Why no answer will come any more."""
        self.ended = asyncio.Event()
        """Set when that was not for `close`."""

    async def open(self, front: Any, task: str) -> None:
        """`front`: the AsyncLLM's `input_processor`; `task` as vLLM's pooler calls it.

        Raises Unavailable when the engine process dies meanwhile.
        """
        from vllm import PoolingParams
        from vllm.inputs import tokens_input

        self._reader = asyncio.create_task(self._read())
        known = await self.told(self._client.get_supported_tasks_async())
        self._like = front.process_inputs("", tokens_input([0]), PoolingParams(task=task), known)
        self._most_embeddings: int = front.mm_encoder_cache_size

    async def told(self, question: Coroutine[Any, Any, T]) -> T:
        """What the engine process says to one of vLLM's own questions, which it answers between two steps.

        Raises Unavailable when it dies meanwhile: vLLM would wait for ever.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        asking, ended = asyncio.ensure_future(question), asyncio.ensure_future(self.ended.wait())
        try:
            await asyncio.wait((asking, ended), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise self._gone()
            return asking.result()
        except EngineDeadError as error:
            raise Unavailable(_DEAD, code="engine_dead") from error
        finally:
            asking.cancel()
            ended.cancel()

    async def send(
        self,
        prompt: Prompt,
        visuals: Sequence[Visual],
        places: Sequence[Place],
        adapter: Any = None,
        rank: int = 0,
    ) -> Asked:
        """Returns once it is under way; what is sent first enters the scheduler first, of the least rank.

        Raises TooLarge for a medium that would never be encoded, and Unavailable once the engine has ended.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        if self.failure:
            raise self._gone()
        own = str(next(self._numbers))
        request = msgspec.structs.replace(
            self._like,
            request_id=own,
            external_req_id=own,
            prompt_token_ids=prompt.ids,
            mm_features=self._features(prompt, visuals, places) if visuals else None,
            # Its queue is ordered by it. After a jump back of the wall clock, newcomers would overtake all.
            arrival_time=time.monotonic(),
            lora_request=adapter,
            priority=rank,
        )
        asked = Asked(own, asyncio.get_running_loop().create_future())
        self._waiting[own] = asked.answer
        try:
            await self._client.add_request_async(request)
        except BaseException as error:
            await self.give_up([asked])
            if isinstance(error, EngineDeadError):
                raise Unavailable(_DEAD, code="engine_dead") from error
            raise
        return asked

    async def give_up(self, asked: Iterable[Asked]) -> None:
        """End the work on those that have no answer yet."""
        left = []
        for own, answer in asked:
            if self._waiting.pop(own, None) is not None:
                left.append(own)
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # seen, or asyncio would tell that nobody looked
        await self._client.abort_requests_async(left)

    def when_left(self, done: Callable[[], None]) -> None:
        """Calls back once the engine process reads nothing any more of what was given up before this."""
        self._left.append(done)
        if len(self._left) == 1:
            task = asyncio.create_task(self._leave())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _leave(self) -> None:
        """It takes aborts and questions in order, between two steps; one question is for all of a moment."""
        left, self._left = self._left, []
        try:
            await self.told(self._client.is_sleeping_async())
            await asyncio.sleep(_UNDER_WAY_SECONDS)
        except Exception as error:  # noqa: BLE001 - the engine process names its own errors
            _log.debug("no answer: %s", error)
        finally:
            for done in left:
                done()

    def close(self) -> None:
        """Before the engine process is ended, or its end would be reported as a crash. Harmless twice."""
        for task in (self._reader, *self._leaving):
            if task:
                task.cancel()
        for done in self._left:  # a task that was cancelled before it began calls nobody
            done()
        self._left.clear()
        self._fail("the engine stopped before it answered")

    async def _read(self) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            while True:
                for each in (await self._client.get_output_async()).outputs:
                    self._answer(each)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must know
            if not isinstance(error, EngineDeadError):  # which vLLM has logged
                _log.exception("an answer of the engine process cannot be read")
            self._fail(_DEAD)
            self.ended.set()

    def _answer(self, output: Any) -> None:
        if output.pooling_output is None and output.finish_reason is None:
            return
        waiting = self._waiting.pop(output.request_id, None)
        if waiting is None or waiting.done():  # its task is cancelled, and has not run since
            return
        if output.pooling_output is not None:
            waiting.set_result(output.pooling_output)
        else:
            waiting.set_exception(QvlError(f"the engine gave its input up ({output.finish_reason})"))

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            if not each.done():
                each.set_exception(self._gone())

    def _gone(self) -> Unavailable:
        return Unavailable(self.failure or _DEAD, code="engine_dead")

    def _features(self, prompt: Prompt, visuals: Sequence[Visual], places: Sequence[Place]) -> list[Any]:
        """Of each medium, in the prompt's order."""
        for visual in visuals:
            if visual.tokens > self._most_embeddings:
                raise TooLarge(
                    f"a medium of {visual.tokens} tokens does not fit into one engine step "
                    f"({self._most_embeddings}): send a smaller one, or raise --max-batched-tokens",
                    code="media_too_large",
                )
        made = (
            feature(visual, place, span, prompt.ids)
            for visual, place, span in zip(visuals, places, prompt.spans, strict=True)
        )
        return sorted(made, key=lambda each: each.mm_position.offset)
