"""`python -m benchmarks.affinity`: would it pay to send requests with the same query to the same replica?

Two replicas of the tiny reranker. Queries with a picture come back as popular ones do (Zipf), each time with
other documents. HAProxy chooses by the fewest connections, as it does for users, then by a hash of a header
that names the query, with one replica allowed a quarter more than its share. The same requests to both.
"""

from __future__ import annotations

import asyncio
import os
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
from rich.console import Console
from rich.table import Table

from benchmarks import rows
from benchmarks.rows import Row
from benchmarks.stats import Timing, summary
from qvl.engine.client.items import png_url
from qvl.engine.demo.tiny import write_pair
from qvl.engine.options import cache_folder
from tests.ray_serve.cluster import START_SECONDS, Cluster

HEADER = "x-qvl-affinity"
BALANCE = {
    "leastconn": "leastconn",
    "affinity": f"hash req.hdr({HEADER})\n    hash-type consistent\n    hash-balance-factor 125",
}
REPLICAS, CLIENTS, DOCUMENTS = 2, 8, 8
QUERIES, ZIPF = 200, 1.1
SIDE = 448
"""Pixels of a query's picture: 196 tokens, as many as its documents have together."""
_BALANCE_VARIABLE = "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"

app = App(name="python -m benchmarks.affinity", result_action="return_value")


def requests(count: int) -> list[tuple[str, dict[str, Any]]]:
    from PIL import Image

    random = np.random.default_rng(7)
    tiles = random.integers(0, 255, (QUERIES, 8, 8, 3), np.uint8)
    pictures = [
        png_url(Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.NEAREST)) for each in tiles
    ]
    chances = 1 / np.arange(1, QUERIES + 1) ** ZIPF
    chosen = random.choice(QUERIES, size=count, p=chances / chances.sum())
    return [
        (
            f"{query}",
            {
                "query": {"image": pictures[query], "text": f"like this {query}"},
                "documents": [f"{number} {place} a red bicycle at the door" for place in range(DOCUMENTS)],
            },
        )
        for number, query in enumerate(chosen.tolist())
    ]


async def drive(url: str, asked: list[tuple[str, dict[str, Any]]], seconds: float) -> list[Timing]:
    timings: list[Timing] = []
    queue = iter(asked)
    end = time.monotonic() + seconds

    async def client(session: httpx.AsyncClient) -> None:
        for name, body in queue:
            started = time.monotonic()
            answer = await session.post("/v1/rerank", json=body, headers={HEADER: name})
            timings.append(Timing(started, time.monotonic(), DOCUMENTS, answer.status_code))
            if time.monotonic() > end:
                return

    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as session:
        await asyncio.gather(*(client(session) for _ in range(CLIENTS)))
    return timings


@contextmanager
def cluster(balance: str, log: Path) -> Iterator[Cluster]:
    _, reranker = write_pair(cache_folder() / "tiny")
    options = ["--reranker", str(reranker), "--dtype", "float32", "--replicas", f"{REPLICAS}"]
    os.environ[_BALANCE_VARIABLE] = balance
    try:
        with Cluster(["qvl.engine.cli", "serve", "--ray", "--replica-cpus", "0.5", *options], log) as running:
            running.wait(lambda: running.up("both") == REPLICAS, START_SECONDS)
            yield running
            running.stop()
    finally:
        del os.environ[_BALANCE_VARIABLE]


@app.default
def affinity(seconds: float = 60.0) -> int:
    date, console = rows.now(), Console(width=110)
    shown = Table(
        "balance", "pairs/s", "p50 ms", "p99 ms", "picture decoded again", "requests of each replica"
    )
    asked = requests(5000)
    for name, balance in BALANCE.items():
        with tempfile.TemporaryDirectory() as folder, cluster(balance, Path(folder) / "log") as running:
            asyncio.run(drive(running.url, asked[-40:], 10))
            found = summary([asyncio.run(drive(running.url, asked, seconds))])
            misses, hits = (
                sum(running.metric("both", f'qvl_cache_lookups_total{{cache="media",result="{result}"}}'))
                for result in ("miss", "hit")
            )
            shares = running.metric("both", 'qvl_requests_total{route="/v1/rerank",status="200"}')
        shown.add_row(
            name, f"{found.items_per_s:.1f}", f"{found.p50_ms:.0f}", f"{found.p99_ms:.0f}",
            f"{misses / (misses + hits):.0%}", " + ".join(f"{each:.0f}" for each in shares),
        )  # fmt: skip
        made = Row(
            hardware=rows.hardware(False),
            versions=rows.versions(),
            commit=rows.commit(),
            date=date,
            profile="affinity",
            model="tiny-reranker",
            dtype="float32",
            workload="popular picture queries",
            mode="closed",
            concurrency=CLIENTS,
            contestant=f"qvl-{name}",
            items_per_s=found.items_per_s,
            p50_ms=found.p50_ms,
            p90_ms=found.p90_ms,
            p99_ms=found.p99_ms,
            requests=found.requests,
            seconds=found.seconds,
            void=f"{found.failed} requests failed" if found.failed else None,
        )
        rows.append(rows.RESULTS / f"{date[:10]}-affinity.jsonl", [made])
    console.print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(app())
