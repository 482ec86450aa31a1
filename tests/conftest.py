"""What every test may use: the tiny pair on disk, and the real server on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from qvl.engine.config import Limits
from tests import web
from tests.ports import free_port
from tests.tiny import write_pair

if TYPE_CHECKING:
    from qvl.engine.media.decoders import ForkServer

# What is tested is what the models answer, not what they answered before; and to compile a tiny model takes
# longer than its tests, so only the parity suite does.
os.environ |= {"QVL_ANSWER_CACHE": "0", "QVL_ENFORCE_EAGER": "1"}

# How long an example takes says how busy the machine is.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")

START_SECONDS = 600
STOP_SECONDS = 180


@dataclass(frozen=True)
class Pair:
    """Folders of a tiny embedder and a tiny reranker."""

    embedder: Path
    reranker: Path


@dataclass(frozen=True)
class Server:
    """A running `qvl serve` with the real engine."""

    url: str
    embedder: str
    reranker: str
    process: subprocess.Popen[bytes]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`gpu` tests are collected everywhere and say why they did not run."""
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(*write_pair(tmp_path_factory.mktemp("pair")))


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """Decoding processes for the loaders of all tests: to start it takes seconds, to fork milliseconds."""
    from qvl.engine.media.decoders import ForkServer, memory

    server = ForkServer(memory(Limits()))
    yield server
    server.close()


@pytest.fixture(scope="session")
def server(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for the whole session; it must come down with exit code 0 when asked to."""
    log = tmp_path_factory.mktemp("server") / "log"
    with start_server(pair, log) as running:
        yield running
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(STOP_SECONDS) == 0, log.read_text()


class start_server:
    """`with start_server(pair, log, "--option", ...) as server`; killed on the way out if still there."""

    def __init__(self, pair: Pair, log: Path, *options: str, reranker: bool = True) -> None:
        self._log = log
        self._port = free_port()
        self._pair = pair
        command = [sys.executable, "-m", "qvl.engine.cli", "serve", "--dtype", "float32"]
        command += ["--embedder", str(pair.embedder)]
        command += ["--reranker", str(pair.reranker)] if reranker else []
        self._command = [*command, "--port", str(self._port), *options]

    def __enter__(self) -> Server:
        with self._log.open("wb") as out:
            process = subprocess.Popen(self._command, stdout=out, stderr=subprocess.STDOUT)
        url = f"http://127.0.0.1:{self._port}"
        self._server = Server(url, self._pair.embedder.name, self._pair.reranker.name, process)
        deadline = time.monotonic() + START_SECONDS
        while web.probe(f"{url}/health/ready") != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"the server did not get ready:\n{self._log.read_text()}")
            time.sleep(0.2)
        return self._server

    def __exit__(self, *_: object) -> None:
        if self._server.process.poll() is None:
            self._server.process.kill()
            self._server.process.wait()
