"""`python -m benchmarks.affinity`: what it brings that a query's requests go to the same replica.

Two replicas of the tiny reranker. Queries with a picture come back, each time with other documents: `popular`
ones as Zipf has it, or each one `twice`, as one does whose documents come in two requests. The same requests
without a header, when HAProxy chooses the fewest connections, and with the one that our client sends.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
from qvl.engine.demo.tiny import write_pair
from qvl.engine.options import cache_folder
from tests.ray_serve.cluster import START_SECONDS, Cluster

BALANCE = ("leastconn", "affinity")
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


def requests(queries: list[int], named: bool) -> list[tuple[str, dict[str, Any]]]:
    """The name of each query, if it is to have one, and what is asked."""
    random = np.random.default_rng(8)
    tiles = random.integers(0, 255, (max(queries) + 1, 8, 8, 3), np.uint8)
    pictures = [
        png_url(Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.NEAREST)) for each in tiles
    ]
    return [
        (
            f"{query}" if named else "",
            {
                "query": {"image": pictures[query], "text": f"like this {query}"},
                "documents": [f"{number} {place} a red bicycle at the door" for place in range(DOCUMENTS)],
            },
        )
        for number, query in enumerate(queries)
    ]


async def drive(url: str, asked: list[tuple[str, dict[str, Any]]], seconds: float) -> list[Timing]:
    timings: list[Timing] = []
    queue = iter(asked)
    end = time.monotonic() + seconds

    async def client(session: httpx.AsyncClient) -> None:
        for name, body in queue:
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


async def measured(
    running: Cluster, asked: list[tuple[str, dict[str, Any]]], seconds: float
) -> tuple[Summary, float]:
    """Also the share of pictures that were decoded, not found."""
    await drive(running.url, asked[-40:], seconds / 6)
    found = summary([await drive(running.url, asked[:-40], seconds)])
    misses, hits = (
        sum(running.metric("both", f'qvl_cache_lookups_total{{cache="media",result="{result}"}}'))
        for result in ("miss", "hit")
    )
    return found, misses / (misses + hits)


def row(workload: str, balance: str, found: Summary, date: str) -> Row:
    return Row(
        hardware=rows.hardware(False),
        versions=rows.versions(),
        commit=rows.commit(),
        date=date,
        profile="affinity",
        model="tiny-reranker",
        dtype="float32",
        workload=f"{workload} picture queries",
        mode="closed",
        concurrency=CLIENTS,
        contestant=f"qvl-{balance}",
        items_per_s=found.items_per_s,
        p50_ms=found.p50_ms,
        p90_ms=found.p90_ms,
        p99_ms=found.p99_ms,
        requests=found.requests,
        seconds=found.seconds,
        void=f"{found.failed} requests failed" if found.failed else None,
    )


@app.default
def affinity(seconds: float = 45.0) -> int:
    date, console = rows.now(), Console(width=110)
    shown = Table("queries", "balance", "pairs/s", "p50 ms", "p99 ms", "pictures decoded")
    for workload, chosen in {"popular": popular, "twice": twice}.items():
        for balance in BALANCE:
            asked = requests(chosen(5000), named=balance == "affinity")
            with tempfile.TemporaryDirectory() as folder, cluster(Path(folder) / "log") as running:
                found, decoded = asyncio.run(measured(running, asked, seconds))
            shown.add_row(
                workload, balance, f"{found.items_per_s:.1f}", f"{found.p50_ms:.0f}", f"{found.p99_ms:.0f}",
                f"{decoded:.0%}",
            )  # fmt: skip
            rows.append(rows.RESULTS / f"{date[:10]}-affinity.jsonl", [row(workload, balance, found, date)])
    console.print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(app())
