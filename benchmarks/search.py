"""`python -m benchmarks.search`: the drawn world through `qvl search add`, then asked, by the real server.

Rows of `results/DATE-search.jsonl`: the rate of the ingestion, and of one that finds everything there;
latencies of recall, of recall through a filter, and of recall with rerank. `recall_at_20` is how much of a
float32 brute force's best 20 is among the index's best 20.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from cyclopts import App
from rich.console import Console
from rich.table import Table

from benchmarks import rows
from benchmarks.processes import Server, serving
from benchmarks.rows import Row
from qvl.engine.client import Client
from qvl.engine.client.items import png_url
from qvl.engine.demo.tasks import FIND
from qvl.engine.demo.world import random_page, random_scene

TOP = 20
FLOOR = 0.98
QVL = [sys.executable, "-m", "qvl.engine.cli"]
Vectors = npt.NDArray[np.float32]

app = App(name="python -m benchmarks.search", result_action="return_value")


def items(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Scenes, every fifth a page, every tenth a caption alone."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        if i % 5 == 4:
            page = random_page(rng)
            fields: dict[str, Any] = {"kind": "page", "words": list(page.words), "paper": page.paper}
            item: dict[str, Any] = {"image": png_url(page.draw(rng))}
        else:
            scene = random_scene(rng)
            things = [thing for thing in scene.things if thing]
            fields = {"kind": "picture", "place": scene.place, "things": len(things)}
            fields["colours"] = sorted({thing.colour for thing in things})
            item = {"image": png_url(scene.draw(rng))}
            if i % 10 == 0:
                fields["kind"], item = "caption", {"text": scene.caption(rng)}
        yield {"id": f"w{i}", **item, "metadata": fields}


def questions(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [random_scene(rng).caption(rng) for _ in range(count)]


def added(source: Path, index: Path, url: str, options: list[str]) -> float:
    """Seconds of one whole `qvl search add`."""
    started = time.monotonic()
    command = [*QVL, "search", "add", str(source), "--index", str(index), "--url", url, *options]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return time.monotonic() - started


def asked(client: Client, texts: list[str], **options: Any) -> tuple[list[float], list[list[str]]]:
    """Milliseconds and ids of each; the first three are asked before, to warm up."""
    for text in texts[:3]:
        client.search(text, instruction=FIND, **options)
    milliseconds, found = [], []
    for text in texts:
        started = time.perf_counter()
        hits = client.search(text, instruction=FIND, **options)
        milliseconds.append(1000 * (time.perf_counter() - started))
        found.append([hit.id for hit in hits])
    return milliseconds, found


def exact(client: Client, source: Path, texts: list[str], fits: Callable[[Any], bool]) -> list[list[str]]:
    """The best of those that fit by float32 vectors and every product."""
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    bare = [{key: each[key] for key in ("text", "image") if key in each} for each in lines]
    documents = _held_vectors(client, source, bare)
    kept = [i for i, each in enumerate(lines) if fits(each["metadata"])]
    queries = client.embed(texts, instruction=FIND)
    order = np.argsort(-(queries @ documents[kept].T), axis=1, kind="stable")[:, :TOP]
    return [[lines[kept[place]]["id"] for place in places] for places in order]


def _held_vectors(client: Client, source: Path, bare: list[Any]) -> Vectors:
    """Embedded once for both brute forces."""
    path = source.with_suffix(".npy")
    if not path.exists():
        np.save(path, client.embed(bare))
    held: Vectors = np.load(path)
    return held


def overlap(found: list[list[str]], best: list[list[str]]) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, best, strict=True)]))


def measured(server: Server, source: Path, index: Path, count: int, asks: int, kept: list[str]) -> list[Row]:
    texts = questions(asks, seed=77)
    stored = kept[1]
    made = [
        _row("search-add", stored, items=count, seconds=added(source, index, server.url, kept)),
        _row("search-add-again", stored, items=count, seconds=added(source, index, server.url, kept)),
    ]
    rule = {"kind": "picture", "things": {"gte": 2}, "colours": ["red", "blue"]}

    def fits(fields: Any) -> bool:
        return (
            fields["kind"] == "picture"
            and fields["things"] >= 2
            and bool({"red", "blue"} & {*fields["colours"]})
        )

    with Client(server.url) as client:
        for name, options, chosen in (
            ("search-recall", {"rerank": False}, lambda _: True),
            ("search-filtered", {"rerank": False, "filter": rule}, fits),
        ):
            milliseconds, found = asked(client, texts, top_n=TOP, **options)
            share = overlap(found, exact(client, source, texts, chosen))
            made.append(_row(name, stored, milliseconds=milliseconds, share=share))
        milliseconds, _ = asked(client, texts[: max(3, asks // 4)], top_n=TOP, recall=TOP)
        made.append(_row("search-rerank-20", stored, milliseconds=milliseconds))
    return made


def _row(
    workload: str,
    stored: str,
    *,
    items: int = 0,
    seconds: float = 0.0,
    milliseconds: list[float] | None = None,
    share: float | None = None,
) -> Row:
    spent = milliseconds or []
    seconds = seconds or sum(spent) / 1000
    count = items or len(spent)
    p50, p90, p99 = np.quantile(spent, (0.5, 0.9, 0.99)).tolist() if spent else (None, None, None)
    return rows.here(
        date=rows.now(),
        profile="search",
        model="bundled",
        dtype="float32",
        workload=workload,
        mode="closed",
        concurrency=1,
        contestant=f"qvl-{stored}",
        items_per_s=count / seconds,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        requests=count,
        seconds=seconds,
        recall_at_20=share,
    )


def shown(made: list[Row]) -> Table:
    table = Table("workload", "index", "items or requests", "per s", "p50 ms", "p99 ms", "recall@20")
    for row in made:
        numbers = [f"{n:.1f}" if n is not None else "" for n in (row.items_per_s, row.p50_ms, row.p99_ms)]
        share = "" if row.recall_at_20 is None else f"{row.recall_at_20:.4f}"
        table.add_row(row.workload, row.contestant, f"{row.requests:,}", *numbers, share)
    return table


@app.default
def search(
    count: int = 20_000,
    asks: int = 200,
    seed: int = 20_26,
    vectors: tuple[Literal["int8", "float16", "float32"], ...] = ("int8", "float16"),
    out: Path | None = None,
) -> int:
    """Exit code 0 when recall@20 is 0.98 or more everywhere."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "world.jsonl"
        with source.open("w") as file:
            file.writelines(json.dumps(each) + "\n" for each in items(count, seed))
        made: list[Row] = []
        for stored in vectors:
            index = Path(folder) / f"{stored}.index"
            with _server(index, Path(folder) / "log") as server:
                made += measured(server, source, index, count, asks, ["--vectors", stored])
    rows.append(out or rows.RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-search.jsonl", made)
    Console(width=None if sys.stdout.isatty() else 120).print(shown(made))
    return 0 if all(row.recall_at_20 is None or row.recall_at_20 >= FLOOR for row in made) else 1


def _server(index: Path, log: Path) -> Any:
    settings = ["--embedder", "bundled", "--reranker", "bundled", "--dtype", "float32"]
    return serving(
        "qvl",
        lambda port: [*QVL, "serve", *settings, "--index", str(index), "--port", str(port)],
        os.environ,
        health="/health/ready",
        log=log,
        seconds=300,
    )


if __name__ == "__main__":
    sys.exit(app())
