"""The real server's ends: told to stop, or its engine killed. Nothing hangs and nothing stays behind."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import STOP_SECONDS, Pair, Server, start_server
from tests.replicas import metric, until

pytestmark = pytest.mark.engine

LONG = "many words to read " * 200
REQUESTS = 24
REFUSED = -1


def ask(server: Server, number: int) -> int:
    """The status, or REFUSED when the connection was."""
    body = {"input": [f"{number} {each} {LONG}" for each in range(4)]}
    try:
        return httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60).status_code
    except httpx.HTTPError:
        return REFUSED


def engines(server: Server) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children(recursive=True)
    return [child for child in children if "EngineCore" in child.name() or "EngineCore" in _title(child)]


def _title(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=5)
    return not alive


def test_sigterm_answers_what_it_took_and_leaves_nothing(pair: Pair, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with start_server(pair, log, reranker=False) as server, ThreadPoolExecutor(REQUESTS) as clients:
        family = psutil.Process(server.process.pid).children(recursive=True)
        assert engines(server)
        answers = [clients.submit(ask, server, number) for number in range(REQUESTS)]
        until(lambda: metric(server, 'qvl_queued_items{role="embedder"}') > 0, seconds=10)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(STOP_SECONDS) == 0
        statuses = [answer.result() for answer in answers]
        assert statuses.count(200) > 0
        assert set(statuses) <= {200, 503, REFUSED}, statuses
        assert gone(family)


def test_a_killed_engine_ends_the_server_with_an_error(pair: Pair, tmp_path: Path) -> None:
    with start_server(pair, tmp_path / "log") as server, ThreadPoolExecutor(REQUESTS) as clients:
        family = psutil.Process(server.process.pid).children(recursive=True)
        answers = [clients.submit(ask, server, number) for number in range(REQUESTS)]
        time.sleep(0.3)
        for engine in engines(server):
            engine.kill()
        ready = []
        while server.process.poll() is None:
            try:
                ready.append(httpx.get(f"{server.url}/health/ready", timeout=5).status_code)
            except httpx.HTTPError:
                break
            time.sleep(0.05)
        assert server.process.wait(STOP_SECONDS) == 3
        statuses = [answer.result() for answer in answers]
        assert 503 in statuses, statuses
        assert set(statuses) <= {200, 503, REFUSED}, statuses
        assert not ready or ready[-1] == 503, ready
        assert gone(family)


def test_a_hung_engine_is_a_504_then_the_end_of_the_server(pair: Pair, tmp_path: Path) -> None:
    """Stopped by a signal, it holds up its callers as a device does that never comes back."""
    log = tmp_path / "log"
    options = ("--request-seconds", "2", "--stall-seconds", "5")
    with start_server(pair, log, *options, reranker=False) as server:
        family = psutil.Process(server.process.pid).children(recursive=True)
        (engine,) = engines(server)
        engine.suspend()
        with ThreadPoolExecutor(4) as clients:
            assert list(clients.map(lambda number: ask(server, number), range(4))) == [504] * 4
            late = [clients.submit(ask, server, number) for number in range(4)]
            assert server.process.wait(5 + STOP_SECONDS) == 3
        assert {answer.result() for answer in late} <= {503, 504, REFUSED}
        assert "hangs: no sign of life for 5 s" in log.read_text()
        assert gone(family)


def test_a_killed_server_takes_its_engines_with_it(pair: Pair, tmp_path: Path) -> None:
    with start_server(pair, tmp_path / "log") as server:
        family = psutil.Process(server.process.pid).children(recursive=True)
        server.process.kill()
        assert gone(family)
