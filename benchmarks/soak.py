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
from typing import Any

import aiohttp
import psutil
from cyclopts import App
from rich.console import Console

from benchmarks import promises
from benchmarks.pool import Asker, Vector, item, vectors
from benchmarks.processes import Server, serving
from benchmarks.promises import Seen, Soaked
from benchmarks.rows import ROOT
from benchmarks.strangers import Strangers, every, hang, harmless
from qvl.engine.client.retry import Policy
from qvl.engine.port import free_port

QUEUE_TOKENS = 10_000
"""Per replica: about a second of work of a small CPU, so that twice the load meets the bound."""
PEAK_SECONDS = 20.0
REPLICAS = 2
KILL_EVERY = 30.0
SETTLE_SECONDS = 120.0
LOOK_SECONDS = 3.0
FIRST_KILL = 10.0
CLIENTS = 16
COSINE = 0.9999

LOG = ROOT / ".cache" / "soak.log"

app = App(name="python -m benchmarks.soak", result_action="return_value")


class Soak:
    def __init__(self, server: Server, client: aiohttp.ClientSession, seed: int, slow_port: int) -> None:
        self.server, self.asker = server, Asker(client)
        self.random = random.Random(seed)
        self.pool = [item(number, self.random) for number in range(60)]
        self.alone: list[Vector] = []
        self.seen = Seen()
        self.strangers = Strangers(self.asker, server.url, self.seen, self.pool[:4], slow_port, self.random)
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
        """Items a second with as many clients as fill the model; strangers disturb it as they do the load."""
        done, until = 0, time.monotonic() + PEAK_SECONDS
        strangers = self.strangers.until(until)

        async def work() -> None:
            nonlocal done
            while time.monotonic() < until:
                chosen = self._choose()
                status, _ = await self.asker.embed([self.pool[i] for i in chosen])
                done += len(chosen) * (status == 200)

        await asyncio.gather(*(work() for _ in range(CLIENTS)), *strangers)
        return done / PEAK_SECONDS

    async def load(self, rate: float, seconds: float) -> None:
        """Requests by the clock, whatever becomes of the earlier ones."""
        self.start = time.monotonic()
        end = self.start + seconds
        others = [asyncio.create_task(every(KILL_EVERY, end, self.kill)), *self.strangers.until(end)]
        others.append(asyncio.create_task(every(1, end, self.watch)))
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
            await harmless(self.watch())
            await asyncio.sleep(1)

    async def _retried(self, items: list[Any]) -> tuple[int, bytes]:
        try:
            return await self.asker.embed(items)
        except aiohttp.ClientConnectionError:  # its replica died: embedding twice does no harm
            self.seen.retried += 1
            # At once, the next connection that was kept may be one more of the same replica's.
            await asyncio.sleep(Policy.backoff)
            return await self.asker.embed(items)

    def _choose(self) -> list[int]:
        return self.random.sample(range(len(self.pool)), self.random.choice((1, 1, 1, 4)))


def _ahead() -> str:
    """Let this process run whenever it wants to, where that is allowed: else its own waiting for a core that
    the models are on, up to 400 ms, counts as the server's."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return "shares the cores"
    return "has its turn first"


async def _run(server: Server, seconds: float, seed: int, slow_port: int, others: float) -> Soaked:
    pool, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(60)
    generator = _ahead()
    hanging = await asyncio.start_server(hang, "127.0.0.1", slow_port)
    async with hanging, aiohttp.ClientSession(server.url, connector=pool, timeout=timeout) as client:
        soak = Soak(server, client, seed, slow_port)
        await soak.learn()
        peak = await soak.peak()
        before = server.memory()
        await soak.load(2 * peak, seconds)
        await soak.settle()
        # The machine is not as fast at the end of a quarter of an hour as it was at its beginning.
        peaks = (peak, await soak.peak())
        return promises.soaked(
            soak.seen,
            others_cpu=others,
            peak=sum(peaks) / 2,
            generator=generator,
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
        "answer-cache": 0,
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
