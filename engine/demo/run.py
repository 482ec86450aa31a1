"""`qvl demo`: the whole way on this machine, over HTTP, with nothing downloaded.

A tiny pair of models, a real `qvl serve`, pictures, pages and videos of a small drawn world, and a few
questions: recall by vectors, then rerank, as a search service does it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import numpy as np
from rich.console import Console
from rich.table import Table

from qvl.engine.client import Client, Ranked
from qvl.engine.client.calls import Vectors
from qvl.engine.demo.bundled import bundled_pair
from qvl.engine.demo.corpus import Asked, Entry, corpus
from qvl.engine.errors import ConfigError
from qvl.engine.options import cache_folder

START_SECONDS = 300
STOP_SECONDS = 15
RERANKED = 4
SHOWN = 3

UNTRAINED = (
    "The embedder is trained on a small drawn world; the reranker has random weights still: its scores show "
    "that both stages work together, so the tables below are in the embedder's order."
)


def demo(*, keep: bool = False) -> int:
    """Run the demo; the exit code is 0 when every stage answered."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    console = Console()
    console.print(UNTRAINED, style="yellow")
    timings: dict[str, float] = {}
    with _timed(timings, "write the tiny pair"):
        embedder, reranker = bundled_pair(cache_folder())
    with _serving(console, timings, embedder, reranker) as url, Client(url) as client:
        _search(console, timings, client)
        _show_timings(console, timings)
        if keep:
            console.print(f"Serving on {url} until Ctrl-C; try {url}/docs")
            _until_interrupted()
    return 0


def _search(console: Console, timings: dict[str, float], client: Client) -> None:
    entries, asked = corpus()
    with _timed(timings, f"embed {len(entries)} items (pictures, pages, videos)"):
        found = client.embed([entry.item for entry in entries])
    for query in asked:
        with _timed(timings, f"embed {len(asked)} queries"):
            [wanted] = client.embed([query.item], instruction=query.instruction)
        similarity = found @ wanted
        recalled = [int(place) for place in np.argsort(-similarity)[:RERANKED]]
        with _timed(timings, f"rerank {len(asked)} × {RERANKED} candidates"):
            ranked = client.rerank(
                query.item, [entries[i].item for i in recalled], instruction=query.instruction
            )
        console.print(
            _table(query, entries, similarity, [Ranked(recalled[r.index], r.score) for r in ranked])
        )


def _table(query: Asked, entries: list[Entry], similarity: Vectors, ranked: list[Ranked]) -> Table:
    table = Table(
        title=f"Query: {query.title}\n{query.instruction}", title_justify="left", title_style="bold"
    )
    table.add_column("rank", justify="right")
    table.add_column("found")
    table.add_column("cosine", justify="right")
    table.add_column("reranker (random)", justify="right")
    recalled = sorted(ranked, key=lambda each: -float(similarity[each.index]))
    for rank, each in enumerate(recalled[:SHOWN], 1):
        table.add_row(
            str(rank), entries[each.index].title, f"{similarity[each.index]:.3f}", f"{each.score:.3f}"
        )
    return table


def _show_timings(console: Console, timings: dict[str, float]) -> None:
    table = Table(title="What took how long", title_justify="left", title_style="bold")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for stage, seconds in timings.items():
        table.add_row(stage, f"{seconds:.2f}")
    console.print(table)


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - started


@contextmanager
def _serving(console: Console, timings: dict[str, float], embedder: Path, reranker: Path) -> Iterator[str]:
    """A real `qvl serve` in a process group of its own, which is gone afterwards whatever happened."""
    port = _free_port()
    command = [sys.executable, "-m", "qvl.engine.cli", "serve", "--port", str(port), "--dtype", "float32"]
    command += ["--embedder", str(embedder), "--reranker", str(reranker)]
    log = cache_folder() / "demo-server.log"
    console.print(f"Starting the server (log: {log})")
    process: subprocess.Popen[bytes] | None = None
    try:
        with log.open("wb") as out, _signals_held():
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        with _timed(timings, "start the server, load both models"):
            _wait_ready(console, process, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process is not None:
            _end(process)


@contextmanager
def _signals_held() -> Iterator[None]:
    """A signal to stop waits for the end of the block: a process half started could not be ended."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda caught, _: came.append(caught)) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _wait_ready(console: Console, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    started = said = time.monotonic()
    with Client(url) as client, console.status("loading …") as status:
        while not client.ready():
            now = time.monotonic()
            if process.poll() is not None:
                raise ConfigError(f"the server ended with code {process.returncode}: {_last_line(log)}")
            if now - started > START_SECONDS:
                raise ConfigError(f"the server is not ready after {START_SECONDS} s; see {log}")
            status.update(f"loading both models … {now - started:.0f} s")
            if not console.is_terminal and now - said > 5:
                said = now
                console.print(f"  loading both models … {now - started:.0f} s")
            time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask, then make sure: the engines are children of the server and share its group."""
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _until_interrupted() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        return
