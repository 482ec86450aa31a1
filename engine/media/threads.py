"""Threads that decode, shared out among requests: what one has begun is all that another waits for.

A thread that gets free is for the request that was given the fewest, as fair queueing counts them: who comes
later begins with what the others are at. A request alone has them all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from qvl.engine.errors import MEDIA_NOT_BEGUN, QvlError, Unprocessable
from qvl.engine.media.decoders import TIMEOUT

T = TypeVar("T")

MOST_LATE = 2
"""Media of a request that may run out of time before what it has not begun is refused: each holds a decoder
all that while, and the request's texts are to be answered before its own time is over."""


class Threads:
    """Belongs to one event loop."""

    def __init__(self, count: int) -> None:
        self.pool = ThreadPoolExecutor(count, thread_name_prefix="qvl-media")
        self._free = count
        self._now = 0
        """Turns that whom a thread was given last had had before."""
        self._waiting: dict[Share, None] = {}

    async def close(self) -> None:
        await asyncio.to_thread(self.pool.shutdown, wait=True, cancel_futures=True)

    def want(self, share: Share) -> None:
        if share not in self._waiting:
            share.turns = max(share.turns, self._now)
            self._waiting[share] = None
        self._give()

    def give_back(self) -> None:
        self._free += 1
        self._give()

    def _give(self) -> None:
        while self._free:
            ready = (share for share in self._waiting if share.may_begin)
            share = min(ready, key=lambda each: each.turns, default=None)
            if share is None:
                return
            if share.begin():
                self._now = share.turns
                share.turns += 1
                self._free -= 1
            if not share.waiting:
                del self._waiting[share]


class Share:
    """One request's part of them."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self.turns = 0
        self.waiting: deque[asyncio.Future[bool]] = deque()
        self._running = 0
        self._late = 0

    @property
    def may_begin(self) -> bool:
        """Once a medium was late, one at a time: the next may be late as well."""
        return not (self._late and self._running)

    def begin(self) -> bool:
        """The next that waits, if one still does."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(True)
                self._running += 1
                return True
        return False

    async def work(self, job: Callable[[], T]) -> T:
        """In a thread. Raises Unprocessable without beginning it where too many were late."""
        await self._turn()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads.pool, job)
        except QvlError as error:
            if error.code == TIMEOUT:
                self._was_late()
            raise
        finally:
            self._end()

    async def _turn(self) -> None:
        if self._late >= MOST_LATE:
            raise _not_begun()
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        self._threads.want(self)
        try:
            begun = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self._end()
            raise
        if not begun:
            raise _not_begun()

    def _was_late(self) -> None:
        self._late += 1
        while self._late >= MOST_LATE and self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(False)

    def _end(self) -> None:
        self._running -= 1
        self._threads.give_back()


def _not_begun() -> Unprocessable:
    return Unprocessable(
        f"{MOST_LATE} media of this request ran out of time, so this one was not begun: send it without them",
        code=MEDIA_NOT_BEGUN,
    )
