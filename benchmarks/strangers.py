"""What strangers do to a server while it is soaked, and the clock by which they do it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import aiohttp
import psutil

from benchmarks.pool import POISON, Asker
from benchmarks.promises import Seen

OFTEN = 0.5
RARELY = 10.0

Fault: TypeAlias = Callable[[], Awaitable[None]]


class Strangers:
    """Slow, rude and hostile clients, and a host of images that never answers."""

    def __init__(
        self,
        asker: Asker,
        url: str,
        seen: Seen,
        polite: Sequence[Any],
        slow_port: int,
        rng: random.Random,
    ) -> None:
        """`polite`: items to ask for and hang up."""
        self._asker, self._where, self._seen, self._random = asker, urlsplit(url), seen, rng
        self._polite, self._slow_port = polite, slow_port

    def until(self, end: float) -> list[asyncio.Task[None]]:
        """All of them at work."""
        often = [every(OFTEN, end, each) for each in (self.dawdle, self.hang_up, self.poison)]
        return [asyncio.create_task(each) for each in (*often, every(RARELY, end, self.slow_host))]

    async def dawdle(self) -> None:
        """A head that stops half way, held for as long as the server lets it be."""
        reader, writer = await asyncio.open_connection(self._where.hostname, self._where.port)
        writer.write(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\n")
        await asyncio.wait_for(reader.read(), 60)
        writer.close()

    async def hang_up(self) -> None:
        try:
            await asyncio.wait_for(self._asker.embed(list(self._polite)), 0.05)
        except TimeoutError:
            return

    async def poison(self) -> None:
        status, _ = await self._asker.embed([{"image": self._random.choice(POISON)}])
        self._seen.poison[status] += 1

    async def slow_host(self) -> None:
        status, _ = await self._asker.embed([{"image": f"http://127.0.0.1:{self._slow_port}/image.png"}])
        self._seen.slow_host[status] += 1


async def every(seconds: float, end: float, fault: Fault) -> None:
    running: set[asyncio.Task[None]] = set()
    while time.monotonic() < end:
        running.add(asyncio.ensure_future(harmless(fault())))
        running = {each for each in running if not each.done()}
        await asyncio.sleep(min(seconds, max(0.0, end - time.monotonic())))
    for each in running:
        each.cancel()


async def harmless(fault: Awaitable[None]) -> None:
    try:
        await fault
    except (OSError, TimeoutError, aiohttp.ClientError, psutil.Error):
        return


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes a request and says nothing."""
    await reader.read()
    writer.close()
