"""Replicas behind one port over the stand-in engine: spread, death, restarts, the supervisor's own end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from qvl.engine import cli
from qvl.engine.config import EngineConfig, Limits, ServerConfig
from qvl.engine.replicas.child import Child
from qvl.engine.replicas.orders import Orders
from tests import web
from tests.engine.http import fake_replica
from tests.engine.http.running import ROOT, E, Running, Start, running
from tests.engine.http.test_server import in_flight
from tests.replicas import CLIENTS, connections, gone, load, metric, replicas, until


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(behaviour, tls="", replicas=2, api_key_file=…)`; all is killed at the end."""
    with ExitStack() as stack:

        def run(
            behaviour: str = "start",
            port: int | None = None,
            tls: str = "",
            replicas: int = 2,
            **settings: object,
        ) -> Running:
            own, more = {"TMPDIR": str(tmp_path)}, json.dumps(settings)
            server = running("fake_replica", replicas, behaviour, tls, more, port=port, environment=own)
            return stack.enter_context(server)

        yield run


def ready(server: Running) -> Running:
    until(lambda: web.probe(f"{server.url}/health/ready") == 200)
    until(lambda: metric(server, "qvl_ready_replicas") == 2)
    return server


def test_connections_are_spread_evenly_and_counted_together(start: Start) -> None:
    server = ready(start())
    until(lambda: connections(server).total() == 0)
    clients = [httpx.Client(base_url=server.url, timeout=120) for _ in range(8)]
    try:
        for client in clients:
            assert client.post(E, json={"input": "a"}).status_code == 200
        assert list(connections(server).values()) == [4, 4]
        first = connections(server)
        for client in clients[::2]:
            client.close()
        until(lambda: connections(server).total() == 4)
        clients += [httpx.Client(base_url=server.url, timeout=120) for _ in range(4)]
        for client in clients[8:]:
            assert client.post(E, json={"input": "a"}).status_code == 200
        assert connections(server) == first
        # Whichever is asked, the answer is of both; the last may be counted just after it was answered.
        of_all = f'qvl_requests_total{{route="{E}",status="200"}} 12.0'
        for client in clients[1::2]:
            until(lambda: of_all in client.get("/metrics").text)  # noqa: B023 - it is over within the turn
        items = [metric(server, f'qvl_replica_items_total{{replica="{each}"}}') for each in range(2)]
        assert min(items) >= 4 and sum(items) == 12
        [built] = re.findall(r"^qvl_build_info{(.*)} (\S+)$", clients[1].get("/metrics").text, re.MULTILINE)
        assert f'version="{version("qvl")}"' in built[0] and built[1] == "1.0"
    finally:
        for client in clients:
            client.close()


def home(server: Running, answer: httpx.Response) -> int:
    """The process that has the connection."""
    port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
    return next(
        each.pid
        for each in replicas(server)
        if port in {other.raddr.port for other in each.net_connections() if other.raddr}
    )


def test_who_is_refused_for_load_is_led_to_another_replica(start: Start) -> None:
    """Though that one has more connections."""
    server = ready(start())
    until(lambda: connections(server).total() == 0)
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=server.url, timeout=120)) for _ in range(4)]
        first, *homes = [home(server, each.post(E, json={"input": "a"})) for each in clients]
        assert sorted(connections(server).values()) == [2, 2]
        # The first client's replica would now get the next connection.
        clients[1 + homes.index(first)].close()
        until(lambda: sorted(connections(server).values()) == [1, 2])

        def led() -> bool:
            """Where this client is slow to come back, the refusal is forgotten."""
            refused = clients[0].post(E, json={"input": "!busy"})
            assert (refused.status_code, refused.headers["connection"]) == (429, "close")
            again = clients[0].post(E, json={"input": "a"})
            assert (again.status_code, again.headers.get("connection")) == (200, None)
            return sorted(connections(server).values()) in ([3], [0, 3])

        until(led)


def test_a_killed_replica_comes_back_while_the_other_answers(start: Start, tmp_path: Path) -> None:
    server = ready(start())
    first, second = replicas(server)
    answered = metric(server, f'qvl_requests_total{{route="{E}",status="200"}}')
    before = {first.pid, second.pid}
    with load(lambda: server.post("a").status_code) as statuses:
        until(lambda: statuses[200] > 20)
        first.kill()
        until(
            lambda: (
                metric(server, "qvl_ready_replicas") == 1
                or bool({each.pid for each in replicas(server)} - before)
            )
        )
        assert metric(server, "qvl_replicas") == 2
        until(lambda: len({each.pid for each in replicas(server)} - before) == 1)
        until(lambda: metric(server, "qvl_ready_replicas") == 2)
    # Only what was on it is lost: one connection of each client, and one that it was handed as it died.
    assert set(statuses) <= {200, 0}
    assert statuses[0] <= 2 * CLIENTS
    # Counters of the dead go on counting: a sum never falls. What it had answered and not counted is lost.
    least = answered + statuses[200] - 2 * CLIENTS
    until(lambda: metric(server, f'qvl_requests_total{{route="{E}",status="200"}}') >= least)
    assert second.is_running()
    assert metric(server, "qvl_bodies_limit_bytes") == 2 * Limits().bodies_bytes
    # It counts where the one before it ended.
    assert {each.stem.rpartition("_")[2] for each in tmp_path.glob("qvl-metrics-*/*")} == {"0", "1"}
    server.signal()
    assert server.wait() == 0
    assert "has ended (status -9: killed by another; this machine" in server.process.communicate()[1]


def test_a_replica_whose_engine_has_died_starts_again(start: Start) -> None:
    server = ready(start())
    before = {each.pid for each in replicas(server)}
    assert server.post("!die").status_code == 503
    until(lambda: len({each.pid for each in replicas(server)} - before) == 1)
    until(lambda: metric(server, "qvl_ready_replicas") == 2)
    assert server.post("a").status_code == 200


def test_a_replica_told_to_stop_gets_no_more_and_is_replaced(start: Start) -> None:
    server = ready(start())
    first, second = replicas(server)
    with load(lambda: server.post("a").status_code) as statuses:
        until(lambda: statuses[200] > 20)
        first.terminate()
        until(lambda: len({each.pid for each in replicas(server)} - {first.pid, second.pid}) == 1)
        until(lambda: metric(server, "qvl_ready_replicas") == 2)
    # Those that were on their way to it are told to ask again, or find it closed if they were slow.
    assert set(statuses) <= {200, 503, 0}, statuses
    assert statuses[503] + statuses[0] <= CLIENTS, statuses


def test_ready_line_and_a_stop_at_rest(start: Start, tmp_path: Path) -> None:
    server = ready(start())
    all_of_it = replicas(server)
    assert server.process.stdout
    line = server.process.stdout.readline()
    models = "tiny-embedder (embedder), tiny-reranker (reranker)"
    assert line == f"qvl is ready on {server.url}: {models}; 2 replicas\n"
    server.signal()
    assert server.wait() == 0
    assert gone(all_of_it)
    out, err = server.process.communicate()
    assert out == ""
    assert re.findall(r"replica (\d) is ready", err) == ["0", "1"]
    assert "Traceback" not in err
    assert not list(tmp_path.glob("qvl-metrics-*"))


def test_draining_lets_requests_finish_and_takes_no_more(start: Start) -> None:
    server = ready(start())
    answer = in_flight(server)
    server.signal()
    until(lambda: web.probe(f"{server.url}/health/ready") in (503, None))
    assert answer.result().status_code == 503
    assert server.wait() == 0


def test_engines_that_do_not_stop_are_left(start: Start) -> None:
    server = ready(start("linger"))
    all_of_it = replicas(server)
    server.signal(signal.SIGINT)
    assert server.wait() == 0
    assert gone(all_of_it)


def test_a_killed_supervisor_leaves_nothing(start: Start, tmp_path: Path) -> None:
    server = ready(start())
    all_of_it = replicas(server)
    assert len(all_of_it) == 2
    server.process.kill()
    assert gone(all_of_it)
    assert not list(tmp_path.glob("qvl-metrics-*"))


def test_a_port_in_use_is_told_before_anything_is_started(start: Start) -> None:
    server = ready(start())
    second = start(port=int(server.url.rpartition(":")[2]))
    assert second.wait() == 2
    assert "is in use" in second.process.communicate()[1]


def test_a_replica_is_told_of_any_number_of_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its engine processes inherit none of them."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    keys = tuple(f"{number:048x} name=tenant-{number} rpm=600" for number in range(4000))
    config = ServerConfig(engine=EngineConfig(embedder="x"), api_key=keys)
    child = Child((), Orders(0, config, tmp_path, fake_replica.start))

    async def started() -> tuple[bool, str | None]:
        child.start()
        ready = await child.settled()
        given = str(Path(f"/proc/{child.pid}/fd/0").readlink()) if ready else child.error
        child.stop()
        await child.gone()
        return ready, given

    assert asyncio.run(started()) == (True, os.devnull)


def test_the_command_line_takes_a_supervisor_for_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvl.engine.replicas.supervisor.supervise", lambda config: config.replicas)
    assert cli.main(["serve", "--embedder", "x", "--replicas", "3"]) == 3
