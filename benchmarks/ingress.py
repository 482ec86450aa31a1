"""`python -m benchmarks.ingress`: what the way in of Ray Serve costs, beside `qvl serve` on the same engine.

Both servers are up at once with one replica each, and take turns under the same load: a full engine with
small bodies and with bodies of 10 MB, and one request at a time. The engine is a clock (`paced.py`), as a GPU
is to the CPU; with `--engine tiny` it is vLLM with the tiny embedder, which wants the CPU that HAProxy needs.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from cyclopts import App
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks import load, rows
from benchmarks.load import Shot, Turn
from benchmarks.processes import serving
from benchmarks.rows import Row
from benchmarks.stats import Summary, summary
from qvl.engine.options import cache_folder
from qvl.engine.response import dump
from tests.ray_serve.cluster import Cluster
from tests.tiny import write_pair

BARE, RAY = "qvl", "qvl-ray"
THROUGHPUT, MILLISECONDS = 0.05, 3.0
"""At most so much may be lost."""
BODY_BYTES = 10_000_000
PICTURES, SIDE = 4, 1024
_SHOTS = 4000
_START_SECONDS = 300.0

Engine: TypeAlias = Literal["clock", "tiny"]

app = App(name="python -m benchmarks.ingress", result_action="return_value")


@dataclass(frozen=True, slots=True)
class Load:
    name: str
    shots: list[Shot]
    concurrency: int


def loads() -> list[Load]:
    texts = [_shot({"input": f"{number} " + "a red bicycle at the door " * 30}) for number in range(_SHOTS)]
    large = [_large(number) for number in range(8)] * 50
    return [
        Load("text, alone", texts, 1),
        Load("text, full", texts, 32),
        Load("10 MB, alone", large, 1),
        Load("10 MB, full", large, 8),
    ]


def _shot(body: dict[str, object]) -> Shot:
    return Shot("/v1/embeddings", dump({**body, "encoding_format": "base64"}), 1)


def _large(number: int) -> Shot:
    """Pictures of one colour with much behind them, so that it is the body that costs; enough of them to
    keep the engine busy for as long as both ways in take to read them."""
    out = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (number, 0, 0)).save(out, "PNG")
    data = out.getvalue() + bytes(BODY_BYTES * 3 // 4 // PICTURES - len(out.getvalue()))
    return _shot({"input": [{"image": [base64.b64encode(data).decode()] * PICTURES}]})


@contextmanager
def servers(engine: Engine, folder: Path) -> Iterator[dict[str, str]]:
    """URLs of both."""
    bare = ["benchmarks.paced", "--bare=1"]
    ray = ["benchmarks.paced", "--split-tokens=0", "--replica-cpus=0.5"]
    if engine == "tiny":
        embedder, _ = write_pair(cache_folder() / "tiny")
        model = [f"--embedder={embedder}", "--dtype=float32"]
        bare = ["qvl.engine.cli", "serve", *model]
        ray = ["qvl.engine.cli", "serve", "--ray", "--replica-cpus=0.5", *model]
    with (
        serving(
            BARE,
            lambda port: [sys.executable, "-m", *bare, f"--port={port}"],
            {},
            health="/health/ready",
            log=folder / "bare",
            seconds=_START_SECONDS,
        ) as alone,
        Cluster(ray, folder / "ray") as cluster,
    ):
        yield {BARE: alone.url, RAY: cluster.url}
        cluster.stop()


def row(engine: Engine, name: str, each: Load, found: Summary, date: str) -> Row:
    return rows.closed(
        found,
        date=date,
        profile="ingress",
        model=engine,
        dtype="float32" if engine == "tiny" else "none",
        workload=each.name,
        concurrency=each.concurrency,
        contestant=name,
    )


@app.default
def ingress(seconds: float = 4.0, rounds: int = 4, engine: Engine = "clock") -> int:
    """Exit code 0 when no more was lost than may be."""
    date, console, lost = rows.now(), Console(width=110), []
    out = rows.RESULTS / f"{date[:10]}-ingress.jsonl"
    shown = Table(
        "load", "in flight", "bare items/s", "Ray items/s", "lost", "bare p50 ms", "Ray p50 ms", "lost ms"
    )
    with tempfile.TemporaryDirectory() as folder, servers(engine, Path(folder)) as urls:
        for each in loads():
            turns: dict[str, list[Turn]] = {name: [] for name in urls}
            for number in range(rounds):
                for name in list(urls)[:: -1 if number % 2 else 1]:
                    load.closed(urls[name], each.shots[:8], min(8, each.concurrency), load.REQUEST_SECONDS)
                    turns[name].append(load.closed(urls[name], each.shots, each.concurrency, seconds))
            bare, ray = (summary([turn.timings for turn in turns[name]]) for name in (BARE, RAY))
            rows.append(out, [row(engine, BARE, each, bare, date), row(engine, RAY, each, ray, date)])
            share, delay = 1 - ray.items_per_s / bare.items_per_s, ray.p50_ms - bare.p50_ms
            lost.append(share <= THROUGHPUT or each.concurrency == 1)
            lost.append(delay <= MILLISECONDS or each.concurrency > 1)
            shown.add_row(
                each.name, f"{each.concurrency}", f"{bare.items_per_s:.1f}", f"{ray.items_per_s:.1f}",
                f"{share:.1%}", f"{bare.p50_ms:.1f}", f"{ray.p50_ms:.1f}", f"{delay:.1f}",
            )  # fmt: skip
    console.print(shown)
    return 0 if all(lost) else 1


if __name__ == "__main__":
    sys.exit(app())
