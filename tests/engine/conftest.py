"""The command line, and a server that speaks the API without a model."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvl.engine import cli
from qvl.engine.config import ServerConfig
from tests import web

QVL = [sys.executable, "-m", "qvl.engine.cli"]
Start = Callable[..., Any]
Run = Callable[..., str]
Served = Callable[..., ServerConfig]
"""The types of `fake`, `qvl` and `served`."""
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("QVL_")}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, items: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def vectors_of(rows: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    return np.asarray([row["embedding"] for row in rows], np.float32)


@dataclass(frozen=True)
class Fake:
    url: str
    process: subprocess.Popen[str]

    def log(self) -> list[dict[str, Any]]:
        """The POST requests so far: path, key and body."""
        log: list[dict[str, Any]] = web.get(f"{self.url}/log").json()
        return log


@pytest.fixture
def fake() -> Iterator[Callable[..., Fake]]:
    """`fake(delay=0.1, key="k", refusals=[...])` starts one; all are killed at the end."""
    with ExitStack() as stack:

        def start(**options: Any) -> Fake:
            command = [sys.executable, str(Path(__file__).with_name("fake_server.py")), json.dumps(options)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            assert process.stdout is not None
            return Fake(f"http://127.0.0.1:{int(process.stdout.readline())}", process)

        yield start


@pytest.fixture
def qvl() -> Callable[..., str]:
    """`qvl("embed", ..., code=2)` runs the command and returns what it says on stderr."""

    def run(*arguments: object, code: int = 0) -> str:
        command = [*QVL, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stderr

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """50 lines, every other with an id of its own."""
    items = [f"text {i}" if i % 2 else {"id": f"d{i}", "text": f"text {i}"} for i in range(50)]
    return write(tmp_path / "in.jsonl", items)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """`served("--port", "9")` is the configuration that `qvl serve` would run."""
    seen: list[ServerConfig] = []

    class Stub:
        @staticmethod
        def serve(config: ServerConfig) -> int:
            seen.append(config)
            return 0

    monkeypatch.setitem(sys.modules, "qvl.engine.server", Stub)
    without_settings(monkeypatch)

    def run(*arguments: str) -> ServerConfig:
        assert cli.main(["serve", *arguments]) == 0
        return seen[-1]

    return run


async def turns() -> None:
    """Of the event loop: enough for all that waits for nothing else."""
    for _ in range(100):
        await asyncio.sleep(0)


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a mistake gets."""
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("qvl: ")
    assert said.err.count("\n") == 1
    return said.err


def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in set(os.environ) - set(CLEAN):
        monkeypatch.delenv(key)
