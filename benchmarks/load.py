"""The client: the same for every contestant. Bodies are made beforehand and answers are not decoded here."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Barrier
from types import TracebackType
from typing import Self

import aiohttp
import numpy as np
import uvloop

from benchmarks.stats import Timing

REQUEST_SECONDS = 120.0
_BARRIER_SECONDS = 60.0
_MOST_IN_FLIGHT = 4096
"""Open loop gives up here: the server has fallen behind for good."""
_STEP = 1.25
_HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Shot:
    """One request, ready to be sent."""

    path: str
    body: bytes
    items: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What came back; `bodies` are the first answers, in the order of the requests."""

    timings: list[Timing]
    bodies: list[bytes]
    failure: str = ""
    """The first reply that was not 200."""


def closed(url: str, shots: Sequence[Shot], concurrency: int, seconds: float, keep: int = 0) -> Turn:
    """`concurrency` requests in flight until the time is over or the shots are."""
    return uvloop.run(_closed(url, shots, concurrency, seconds, keep))


def opened(url: str, shots: Sequence[Shot], rate: float, seed: int, keep: int = 0) -> Turn:
    """Each shot at a random moment (Poisson), `rate` per second, whether or not earlier ones are answered.

    The answers to the last `keep` are kept, which meet the longest queue.
    """
    gaps = np.random.default_rng(seed).exponential(1 / rate, size=len(shots))
    return uvloop.run(_opened(url, shots, np.cumsum(gaps).tolist(), keep))


def replayed(url: str, shots: Sequence[Shot], moments: Sequence[float]) -> Turn:
    """Each request at its moment, in seconds from the start."""
    return uvloop.run(_opened(url, shots, moments))


class Clients:
    """`count` client processes that start together; with one, this process is the client."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._stack = ExitStack()
        self._together: tuple[ProcessPoolExecutor, Barrier] | None = None

    def __enter__(self) -> Self:
        if self._count > 1:
            context = multiprocessing.get_context("spawn")
            barrier = self._stack.enter_context(context.Manager()).Barrier(self._count)
            executor = ProcessPoolExecutor(self._count, mp_context=context)
            self._together = self._stack.enter_context(executor), barrier
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._together is not None and error is not None:
            self._together[0].shutdown(wait=False, cancel_futures=True)
        self._stack.close()

    def closed(self, url: str, shots: Sequence[Shot], concurrency: int, seconds: float, keep: int) -> Turn:
        """`keep` is at most the number of processes, of each of which the first answer is kept."""
        count = self._count
        if self._together is None or concurrency < count:
            return closed(url, shots, concurrency, seconds, keep)
        executor, start = self._together
        shares = [(concurrency + place) // count for place in range(count)]
        futures = [
            executor.submit(
                _closed_together,
                start,
                url,
                shots[place::count],
                share,
                seconds,
                int(place < keep),
            )
            for place, share in enumerate(shares)
        ]
        turns = [future.result(timeout=seconds + REQUEST_SECONDS + _BARRIER_SECONDS) for future in futures]
        failure = next((turn.failure for turn in turns if turn.failure), "")
        bodies = [body for turn in turns for body in turn.bodies]
        return Turn([timing for turn in turns for timing in turn.timings], bodies, failure)


def _closed_together(
    start: Barrier, url: str, shots: Sequence[Shot], concurrency: int, seconds: float, keep: int
) -> Turn:
    start.wait(_BARRIER_SECONDS)
    return closed(url, shots, concurrency, seconds, keep)


async def _closed(url: str, shots: Sequence[Shot], concurrency: int, seconds: float, keep: int) -> Turn:
    timings: list[Timing] = []
    bodies: dict[int, bytes] = {}
    failures: list[str] = []
    numbered = iter(enumerate(shots))
    end = time.monotonic() + seconds

    async def worker(session: aiohttp.ClientSession) -> None:
        for number, shot in numbered:
            timing, body = await _send(session, shot, time.monotonic())
            timings.append(timing)
            if timing.status != 200:
                failures.append(_reason(timing, body))
            if number < keep:
                bodies[number] = body
            if time.monotonic() >= end:
                return

    async with _session(url) as session:
        await asyncio.gather(*(worker(session) for _ in range(concurrency)))
    return Turn(timings, [bodies[number] for number in sorted(bodies)], "".join(failures[:1]))


async def _opened(url: str, shots: Sequence[Shot], moments: Sequence[float], keep: int = 0) -> Turn:
    timings: list[Timing] = []
    bodies: dict[int, bytes] = {}
    failures: list[str] = []

    async def one(session: aiohttp.ClientSession, place: int, moment: float) -> None:
        # Timers have a resolution of a millisecond and may fire early.
        timing, body = await _send(session, shots[place], min(moment, time.monotonic()))
        timings.append(timing)
        if timing.status != 200:
            failures.append(_reason(timing, body))
        if place >= len(shots) - keep:
            bodies[place] = body

    async with _session(url) as session, asyncio.TaskGroup() as group:
        start = time.monotonic()
        for place, moment in enumerate(moments):
            await asyncio.sleep(max(0.0, start + moment - time.monotonic()))
            if place - len(timings) > _MOST_IN_FLIGHT:
                failures.append(f"{_MOST_IN_FLIGHT} requests were in flight")
                break
            group.create_task(one(session, place, start + moment))
    return Turn(timings, [bodies[place] for place in sorted(bodies)], "".join(failures[:1]))


def _session(url: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        url,
        headers=_HEADERS,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def _reason(timing: Timing, body: bytes) -> str:
    return f"HTTP {timing.status}: {body[:200].decode(errors='replace')}"


async def _send(session: aiohttp.ClientSession, shot: Shot, asked: float) -> tuple[Timing, bytes]:
    try:
        async with session.post(shot.path, data=shot.body) as response:
            body = await response.read()
            return Timing(asked, time.monotonic(), shot.items, response.status), body
    except (aiohttp.ClientError, TimeoutError) as error:
        return Timing(asked, time.monotonic(), shot.items, 0), repr(error).encode()


def highest(holds: Callable[[float], bool], rate: float, probes: int) -> Iterator[tuple[float, bool]]:
    """Rates tried, and whether each held: from `rate` up or down by a quarter, then halving what is left."""
    low, high = 0.0, math.inf
    for _ in range(probes):
        good = holds(rate)
        yield rate, good
        low, high = (rate, high) if good else (low, rate)
        rate = low * _STEP if high == math.inf else (low + high) / 2 if low else high / _STEP
