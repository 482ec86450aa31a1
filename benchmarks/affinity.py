"""`python -m benchmarks.affinity`: what it brings that a query's requests go to the same replica.

Two replicas of the tiny reranker. Queries with a picture come back, each time with other documents: `popular`
ones as Zipf has it, or each one `twice`, as one does whose documents come in two requests. By turns without a
header, when HAProxy chooses the fewest connections, and with the one that our client sends; the queries of a
turn are its own.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from cyclopts import App
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks import rows
from benchmarks.rows import Row
from benchmarks.stats import Summary, Timing, summary
from qvl.engine.client.items import png_url
from qvl.engine.client.wire import AFFINITY
from qvl.engine.options import cache_folder
from tests.ray_serve.cluster import START_SECONDS, Cluster
from tests.tiny import write_pair

BALANCE = ("leastconn", "affinity")
TURNS = 4
"""Of each."""
REQUESTS = 1600
"""More than a turn has time for."""
RESULTS = ("miss", "hit")
REPLICAS, CLIENTS, DOCUMENTS = 2, 8, 8
QUERIES, ZIPF = 200, 1.1
SIDE = 448
"""Pixels of a query's picture: 196 tokens, as many as its documents have together."""
app = App(name="python -m benchmarks.affinity", result_action="return_value")


def popular(count: int) -> list[int]:
    """A few queries are most of all requests."""
    chances = 1 / np.arange(1, QUERIES + 1) ** ZIPF
    chosen = np.random.default_rng(7).choice(QUERIES, size=count, p=chances / chances.sum())
    return [int(query) for query in chosen]


def twice(count: int) -> list[int]:
    """Each query once more after as many others as there are clients."""
    rounds = range(0, count // 2, CLIENTS)
    return [query for start in rounds for _ in range(2) for query in range(start, start + CLIENTS)]


def requests(queries: list[int], turn: int, named: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of each query, if it is to have one, and what is asked."""
    random = np.random.default_rng(turn)
    tiles = random.integers(0, 255, (max(queries) + 1, 8, 8, 3), np.uint8)
    pictures = [
        png_url(Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.NEAREST)) for each in tiles
    ]
    for number, query in enumerate(queries):
        documents = [f"{turn} {number} {place} a red bicycle at the door" for place in range(DOCUMENTS)]
        asked = {"image": pictures[query], "text": f"like this {query}"}
        yield f"{turn} {query}" if named else "", {"query": asked, "documents": documents}


async def drive(url: str, asked: Iterator[tuple[str, dict[str, Any]]], seconds: float) -> list[Timing]:
    timings: list[Timing] = []
    end = time.monotonic() + seconds

    async def client(session: httpx.AsyncClient) -> None:
        for name, body in asked:
            started = time.monotonic()
            answer = await session.post("/v1/rerank", json=body, headers={AFFINITY: name} if name else {})
            timings.append(Timing(started, time.monotonic(), DOCUMENTS, answer.status_code))
            if time.monotonic() > end:
                return

    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as session:
        await asyncio.gather(*(client(session) for _ in range(CLIENTS)))
    return timings


@contextmanager
def cluster(log: Path) -> Iterator[Cluster]:
    _, reranker = write_pair(cache_folder() / "tiny")
    options = ["--reranker", str(reranker), "--dtype", "float32", "--replicas", f"{REPLICAS}"]
    with Cluster(["qvl.engine.cli", "serve", "--ray", "--replica-cpus", "0.5", *options], log) as running:
        running.wait(lambda: running.up("both") == REPLICAS, START_SECONDS)
        yield running
        running.stop()


@dataclass
class Measured:
    """Of one balance, all turns together."""

    turns: list[list[Timing]] = field(default_factory=list)
    lookups: Counter[str] = field(default_factory=Counter)
    """Pictures by whether they were decoded already."""


def take_turns(running: Cluster, choose: Callable[[int], list[int]], seconds: float) -> dict[str, Measured]:
    def lookups() -> Counter[str]:
        series = 'qvl_cache_lookups_total{{cache="media",result="{}"}}'
        return Counter({each: int(sum(running.metric("both", series.format(each)))) for each in RESULTS})

    measured = {balance: Measured() for balance in BALANCE}
    for turn in range(2 * TURNS):
        balance = BALANCE[(turn + turn // 2) % 2]  # A B B A
        before = lookups()
        asked = requests(choose(REQUESTS), 2 + turn + 100 * (choose is twice), named=balance == "affinity")
        measured[balance].turns.append(asyncio.run(drive(running.url, asked, seconds)))
        measured[balance].lookups += lookups() - before
    return measured


def row(workload: str, balance: str, found: Summary, date: str) -> Row:
    return rows.closed(
        found,
        date=date,
        profile="affinity",
        model="tiny-reranker",
        dtype="float32",
        workload=f"{workload} picture queries",
        concurrency=CLIENTS,
        contestant=f"qvl-{balance}",
    )


@app.default
def affinity(seconds: float = 12.0) -> int:
    """`seconds`: of a turn."""
    date, console = rows.now(), Console(width=110)
    shown = Table("queries", "balance", "pairs/s", "p50 ms", "p99 ms", "pictures decoded")
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder) / "log") as running:
        for workload, choose in {"popular": popular, "twice": twice}.items():
            asyncio.run(drive(running.url, requests(choose(REQUESTS), 1, named=True), seconds / 2))
            for balance, measured in take_turns(running, choose, seconds).items():
                found, seen = summary(measured.turns), measured.lookups
                decoded = seen["miss"] / seen.total()
                shown.add_row(
                    workload, balance, f"{found.items_per_s:.1f}", f"{found.p50_ms:.0f}",
                    f"{found.p99_ms:.0f}", f"{decoded:.0%}",
                )  # fmt: skip
                path = rows.RESULTS / f"{date[:10]}-affinity.jsonl"
                rows.append(path, [row(workload, balance, found, date)])
    console.print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(app())
