"""Two replicas with engines of their own behind one port, and no process left of either."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests import web
from tests.conftest import START_SECONDS, STOP_SECONDS, Pair, Server, start_server
from tests.replicas import CLIENTS, connections, family, gone, load, metric, replicas, until

pytestmark = pytest.mark.engine

QUESTION = {"input": ["a red bicycle"]}


def ask(client: httpx.Client) -> Any:
    answer = client.post("/v1/embeddings", json=QUESTION)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"][0]["embedding"]


def ask_anew(server: Server) -> int:
    return web.post(f"{server.url}/v1/embeddings", json=QUESTION, timeout=60).status_code


def two_clients_each(server: Server) -> bool:
    """Unless one was too busy to say that it lives. Whoever is asked gives the same answer."""
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=server.url, timeout=60)) for _ in range(4)]
        vectors = [ask(client) for client in clients]
        assert all(vector == pytest.approx(vectors[0], abs=1e-6) for vector in vectors)
        return list(connections(server).values()) == [2, 2]


def both_are_ready(server: Server) -> None:
    until(lambda: metric(server, "qvl_ready_replicas") == 2, START_SECONDS)


def test_both_answer_and_a_killed_one_comes_back(pair: Pair, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with start_server(pair, log, "--replicas", "2", reranker=False) as server:
        both_are_ready(server)
        first, second = replicas(server)
        ends = family(first), family(second)
        until(lambda: two_clients_each(server))
        with load(lambda: ask_anew(server)) as statuses:
            until(lambda: statuses[200] > 20)
            first.kill()
            assert gone(ends[0])
            until(lambda: metric(server, "qvl_ready_replicas") == 1)
            answered = statuses[200]
            until(lambda: statuses[200] > answered + 20)
            both_are_ready(server)
        # What was on it is lost, at most one request of each client; nothing else is.
        assert set(statuses) <= {200, 0}, statuses
        assert statuses[0] <= 2 * CLIENTS, statuses
        assert second in replicas(server)
        rest = family(*replicas(server))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(STOP_SECONDS) == 0, log.read_text()
        assert gone(rest)
        assert log.read_text().count("qvl is ready on") == 1
        assert f"{server.url}: {server.embedder} (embedder); 2 replicas" in log.read_text()


def test_a_killed_supervisor_leaves_nothing(pair: Pair, tmp_path: Path) -> None:
    """One replica is ready by then, the other is loading."""
    with start_server(pair, tmp_path / "log", "--replicas", "2", reranker=False) as server:
        until(lambda: len(replicas(server)) == 2)
        whole = family(psutil.Process(server.process.pid))
        assert len(whole) > 3
        server.process.kill()
        server.process.wait()
        assert gone(whole)
