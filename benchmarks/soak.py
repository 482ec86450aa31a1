"""`make soak`: twice what the server can do, for long, with faults; then the promises beside what was seen.

Two replicas of the tiny embedder behind one port. Every vector is compared with the answer that the same
item got when nothing else ran. While the load runs, engine processes are killed with -9, clients dawdle and
hang up, images are poisoned, and a host of images hangs. Load generator and server share the machine, as on
a laptop.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import psutil
from cyclopts import App
from rich.console import Console

from benchmarks import promises
from benchmarks.pool import POISON, Asker, Vector, item, vectors
from benchmarks.processes import Server, free_port, serving
from benchmarks.promises import Seen, Soaked
from benchmarks.rows import ROOT

QUEUE_TOKENS = 8_000
"""Per replica: about a second of work of a small CPU, so that twice the load meets the bound."""
PEAK_SECONDS = 10.0
REPLICAS = 2
KILL_EVERY = 30.0
SLOW_EVERY = 10.0
SETTLE_SECONDS = 120.0
LOOK_SECONDS = 3.0
FIRST_KILL = 10.0
CLIENTS = 16
COSINE = 0.9999

LOG = ROOT / ".cache" / "soak.log"

app = App(name="python -m benchmarks.soak", result_action="return_value")


class Soak:
    def __init__(self, server: Server, client: aiohttp.ClientSession, seed: int, slow_port: int) -> None:
        self.server, self.asker, self.slow_port = server, Asker(client), slow_port
        self.random = random.Random(seed)
        self.pool = [item(number, self.random) for number in range(60)]
        self.alone: list[Vector] = []
        self.seen = Seen()
        self.start = 0.0
        self.killed: float | None = None
        self.noticed = False

    async def learn(self) -> None:
        # The port is ready as soon as one is.
        while await self.asker.replicas() < REPLICAS:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(1)
        for each in self.pool:
            status, answer = await self.asker.embed([each])
            assert status == 200, answer
            self.alone.append(vectors(answer)[0])

    async def peak(self) -> float:
        """Items a second with as many clients as fill the model."""
        done, until = 0, time.monotonic() + PEAK_SECONDS

        async def work() -> None:
            nonlocal done
            while time.monotonic() < until:
                chosen = self._choose()
                status, _ = await self.asker.embed([self.pool[i] for i in chosen])
                done += len(chosen) * (status == 200)

        await asyncio.gather(*(work() for _ in range(CLIENTS)))
        return done / PEAK_SECONDS

    async def load(self, rate: float, seconds: float) -> None:
        """Requests by the clock, whatever becomes of the earlier ones."""
        self.start = time.monotonic()
        end = self.start + seconds
        faults = [self._every(KILL_EVERY, end, self.kill), self._every(1, end, self.watch)]
        faults.append(self._every(SLOW_EVERY, end, self.slow_host))
        faults += [self._every(0.5, end, each) for each in (self.dawdle, self.hang_up, self.poison)]
        others = [asyncio.create_task(each) for each in faults]
        async with asyncio.TaskGroup() as group:
            due = self.start
            # A generator that cannot keep up asks for less, not for longer.
            while due < end and time.monotonic() < end:
                chosen = self._choose()
                group.create_task(self.ask(chosen))
                due += len(chosen) / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*others)

    async def ask(self, chosen: list[int]) -> None:
        began = time.monotonic()
        try:
            status, answer = await self._retried([self.pool[i] for i in chosen])
        except aiohttp.ClientConnectionError:
            self.seen.lost += 1
            return
        self.seen.statuses[status] += 1
        if status == 429:
            self.seen.reject_seconds.append(time.monotonic() - began)
        if status == 200:
            self.seen.good[int(time.monotonic() - self.start)] += len(chosen)
            for vector, index in zip(vectors(answer), chosen, strict=True):
                self.seen.wrong += float(vector @ self.alone[index]) < COSINE

    async def kill(self) -> None:
        """One at a time: two dead replicas of two are an outage, and no promise covers it."""
        if self.killed is not None:
            return
        found = psutil.Process(self.server.pid).children(recursive=True)
        engines = [each for each in found if "EngineCore" in " ".join([each.name(), *each.cmdline()])]
        if engines and time.monotonic() - self.start > FIRST_KILL:
            self.random.choice(engines).kill()
            self.seen.kills += 1
            self.killed, self.noticed = time.monotonic(), False
            self.seen.steady.discard(int(self.killed - self.start))

    async def watch(self) -> None:
        if await self.asker.replicas() < REPLICAS:
            self.noticed = True
            return
        if self.killed is not None:
            if not self.noticed:
                return
            self.seen.restart_seconds.append(time.monotonic() - self.killed)
            self.killed = None
        self.seen.steady.add(int(time.monotonic() - self.start))

    async def settle(self) -> None:
        """Until the last one killed is back: a model that is being loaded takes memory of its own."""
        end = time.monotonic() + SETTLE_SECONDS
        while self.killed is not None and time.monotonic() < end:
            await _harmless(self.watch())
            await asyncio.sleep(1)

    async def dawdle(self) -> None:
        """A head that stops half way, held for as long as the server lets it be."""
        where = urlsplit(self.server.url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\n")
        await asyncio.wait_for(reader.read(), 60)
        writer.close()

    async def hang_up(self) -> None:
        try:
            await asyncio.wait_for(self.asker.embed(self.pool[:4]), 0.05)
        except TimeoutError:
            return

    async def poison(self) -> None:
        status, _ = await self.asker.embed([{"image": self.random.choice(POISON)}])
        self.seen.poison[status] += 1

    async def slow_host(self) -> None:
        status, _ = await self.asker.embed([{"image": f"http://127.0.0.1:{self.slow_port}/image.png"}])
        self.seen.slow_host[status] += 1

    async def _retried(self, items: list[Any]) -> tuple[int, bytes]:
        try:
            return await self.asker.embed(items)
        except aiohttp.ClientConnectionError:  # its replica died: embedding twice does no harm
            self.seen.retried += 1
            return await self.asker.embed(items)

    async def _every(self, seconds: float, end: float, fault: Callable[[], Awaitable[None]]) -> None:
        running: set[asyncio.Task[None]] = set()
        while time.monotonic() < end:
            running.add(asyncio.ensure_future(_harmless(fault())))
            running = {each for each in running if not each.done()}
            await asyncio.sleep(min(seconds, max(0.0, end - time.monotonic())))
        for each in running:
            each.cancel()

    def _choose(self) -> list[int]:
        return self.random.sample(range(len(self.pool)), self.random.choice((1, 1, 1, 4)))


async def _harmless(fault: Awaitable[None]) -> None:
    try:
        await fault
    except (OSError, TimeoutError, aiohttp.ClientError, psutil.Error):
        return


async def _hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes a request and says nothing."""
    await reader.read()
    writer.close()


async def _run(server: Server, seconds: float, seed: int, slow_port: int, others: float) -> Soaked:
    pool, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(60)
    hanging = await asyncio.start_server(_hang, "127.0.0.1", slow_port)
    async with hanging, aiohttp.ClientSession(server.url, connector=pool, timeout=timeout) as client:
        soak = Soak(server, client, seed, slow_port)
        await soak.learn()
        peak = await soak.peak()
        before = server.memory()
        await soak.load(2 * peak, seconds)
        await soak.settle()
        return promises.soaked(
            soak.seen,
            others_cpu=others,
            peak=peak,
            seconds=seconds,
            replicas=REPLICAS,
            memory=(before, server.memory()),
        )


@app.default
def soak(seconds: float = 900.0, seed: int = 0) -> int:
    """Exit code 0 when every promise was kept; its row goes to results/soak."""
    # As Ctrl-C does: the server must not outlive this.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    slow_port, others = free_port(), psutil.cpu_percent(LOOK_SECONDS) / 100
    settings = {
        "embedder": "bundled",
        "dtype": "float32",
        "replicas": REPLICAS,
        "queue-tokens": QUEUE_TOKENS,
        "allow-hosts": f"127.0.0.1:{slow_port}",
    }
    options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    with serving(
        "qvl",
        lambda port: [sys.executable, "-m", "qvl.engine.cli", "serve", *options, "--port", str(port)],
        os.environ,
        health="/health/ready",
        log=LOG,
        seconds=300,
    ) as server:
        row = asyncio.run(_run(server, seconds, seed, slow_port, others))
    Console().print(promises.table(row))
    sys.stderr.write(f"a row was added to {promises.append(row)}; the server's log is {LOG}\n")
    return 0 if all(kept for *_, kept in promises.promises(row)) else 1


if __name__ == "__main__":
    sys.exit(app())
