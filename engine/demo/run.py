"""`qvl demo`: the whole way on this machine, over HTTP, with nothing downloaded.

The bundled pair, a real `qvl serve`, pictures, pages and videos of the small drawn world that it was trained
on, and questions: recall by vectors, then rerank, as a search service does it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from rich.console import Console

from qvl.engine.client import Client
from qvl.engine.client.calls import Vectors
from qvl.engine.demo import search, tables
from qvl.engine.demo.bundled import bundled_pair
from qvl.engine.demo.corpus import TYPED, Asked, Entry, corpus
from qvl.engine.demo.page import page
from qvl.engine.demo.search import Found
from qvl.engine.errors import ConfigError
from qvl.engine.options import cache_folder
from qvl.engine.port import free_port

START_SECONDS = 300
STOP_SECONDS = 15

ABOUT = (
    "Two tiny models, trained on a small drawn world, show both stages at work. The first turns every "
    "picture, page and video into a vector and finds the nearest to a question; the second reads the "
    "question beside each of those and says how sure it is that they fit. They know this world alone, and "
    "say nothing about the quality of the published models."
)


def demo(*, keep: bool = False, ask: Sequence[str] = (), show: bool = False) -> int:
    """Run the demo; the exit code is 0 when every stage answered.

    `ask` are further questions; `show` writes the answers with their pictures to a page and opens it.
    """
    signal.signal(signal.SIGTERM, _as_interrupt)
    console = Console()
    console.print(ABOUT, style="yellow")
    timings: dict[str, float] = {}
    with _serving(console, timings) as url, Client(url) as client:
        searched = Searched(client, timings)
        typed = [searched.ask(text) for text in ask]
        _report(console, searched, typed)
        if show:
            _open(console, searched, typed)
        if keep:
            console.print(f"Serving on {url} until Ctrl-C; try {url}/docs")
            _until_interrupted(console, searched)
    return 0


@dataclass
class Searched:
    """The demo's corpus, embedded, and the answers to its questions."""

    client: Client
    timings: dict[str, float]
    entries: list[Entry] = field(init=False)
    vectors: Vectors = field(init=False)
    found: list[Found] = field(init=False)

    def __post_init__(self) -> None:
        self.entries, questions = corpus()
        with _timed(self.timings, f"embed {len(self.entries)} items (pictures, pages, videos)"):
            self.vectors = self.client.embed([entry.item for entry in self.entries])
        with _timed(self.timings, f"embed {len(questions)} questions"):
            nearest = search.recall(self.client, self.vectors, questions)
        with _timed(self.timings, f"rerank {len(questions)} × {search.RECALLED} candidates"):
            self.found = [
                search.rerank(self.client, self.entries, asked, near)
                for asked, near in zip(questions, nearest, strict=True)
            ]

    def ask(self, text: str) -> Found:
        asked = Asked(text, text, TYPED)
        [nearest] = search.recall(self.client, self.vectors, [asked])
        return search.rerank(self.client, self.entries, asked, nearest)


def _report(console: Console, searched: Searched, typed: Sequence[Found]) -> None:
    for found in typed or search.telling(searched.found):
        console.print(tables.question(searched.entries, found))
    console.print(tables.shares(search.shares(searched.found)))
    console.print(tables.timings(searched.timings))


def _open(console: Console, searched: Searched, typed: Sequence[Found]) -> None:
    file = cache_folder() / "demo.html"
    shown = [*typed, *search.telling(searched.found)]
    file.write_text(page(ABOUT, searched.entries, shown, search.shares(searched.found)), encoding="utf-8")
    console.print(f"The same with pictures: {file}", soft_wrap=True)
    webbrowser.open(file.resolve().as_uri())


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - started


@contextmanager
def _serving(console: Console, timings: dict[str, float]) -> Iterator[str]:
    """A real `qvl serve` in a process group of its own, which is gone afterwards whatever happened."""
    port, (embedder, reranker) = free_port(), bundled_pair()
    command = [sys.executable, "-m", "qvl.engine.cli", "serve", "--port", str(port), "--dtype", "float32"]
    command += ["--embedder", str(embedder), "--reranker", str(reranker), "--enforce-eager"]
    log = cache_folder() / "demo-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
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


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _until_interrupted(console: Console, searched: Searched) -> None:
    """Questions typed at a terminal are answered; anywhere else it only waits."""
    with suppress(KeyboardInterrupt):
        while sys.stdin.isatty():
            try:
                text = console.input("ask for a picture, page or video: ").strip()
            except EOFError:
                break
            if text:
                console.print(tables.question(searched.entries, searched.ask(text)))
        signal.pause()
