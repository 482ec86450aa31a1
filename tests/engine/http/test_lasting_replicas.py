"""What several replicas live through in a month: cleaned folders, full disks, clients that never hang up."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from qvl.engine.replicas import counts
from tests import web
from tests.engine.http import test_replicas
from tests.engine.http.running import E, Running, Start
from tests.engine.http.test_replicas import ready
from tests.replicas import connections, metric, replicas, until

start = test_replicas.start


def killed(server: Running, replica: psutil.Process) -> None:
    """Returns when the supervisor knows, and leads nobody there."""
    replica.kill()
    until(lambda: replica.pid not in {each.pid for each in replicas(server)})


def test_the_server_is_ready_once_all_have_been_and_then_while_one_is(start: Start, tmp_path: Path) -> None:
    """An update goes on to the next host when this one is ready."""
    server = start("one_waits")
    until(lambda: web.probe(f"{server.url}/health/live") == 200)
    with httpx.Client(base_url=server.url, timeout=120) as kept:
        until(lambda: metric(server, "qvl_ready_replicas") == 1)
        until(lambda: server.post("a").status_code == 200)
        answer = kept.get("/health/ready")
        assert (answer.status_code, answer.json()["code"]) == (503, "starting")
        (tmp_path / "go").touch()
        until(lambda: kept.get("/health/ready").status_code == 200)
        assert web.get(f"{server.url}/health/ready").status_code == 200
        (tmp_path / "go").unlink()
        killed(server, replicas(server)[1])
        until(lambda: len(replicas(server)) == 2)
        for _ in range(3):
            assert web.get(f"{server.url}/health/ready").status_code == 200
        (tmp_path / "go").touch()
        until(lambda: metric(server, "qvl_ready_replicas") == 2)
        for _ in range(4):
            assert web.get(f"{server.url}/health/ready").status_code == 200


@pytest.mark.parametrize(("behaviour", "replicas"), [("one_slow", 2), ("second_slow", 3)])
def test_nobody_waits_for_one_that_loads_long_after_another_was_ready(
    start: Start, behaviour: str, replicas: int
) -> None:
    server = start(behaviour, replicas=replicas)
    until(lambda: web.probe(f"{server.url}/health/ready") == 200)
    assert server.process.stdout
    assert server.process.stdout.readline().endswith(f"; 1 of {replicas} replicas\n")


def test_kept_connections_come_to_a_replica_that_came_back(start: Start) -> None:
    server = ready(start("brief"))
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=server.url, timeout=120)) for _ in range(4)]

        def all_ask() -> list[int]:
            """How many each replica has of them."""
            for client in clients:
                assert client.post(E, json={"input": "a"}).status_code == 200
            return sorted(connections(server).values())

        until(lambda: all_ask() == [2, 2])
        killed(server, replicas(server)[0])
        for client in clients:
            client.close()
        clients[:] = [stack.enter_context(httpx.Client(base_url=server.url, timeout=120)) for _ in range(4)]
        until(lambda: all_ask() in ([4], [0, 4]) or metric(server, "qvl_ready_replicas") == 2)
        until(lambda: metric(server, "qvl_ready_replicas") == 2)
        until(lambda: all_ask() == [2, 2])


def test_the_files_of_the_metrics_have_their_room_and_are_locked(start: Start, tmp_path: Path) -> None:
    """A map of a hole is a SIGBUS on a full disk; a folder that is not locked is removed when it is old."""
    server = ready(start())
    killed(server, replicas(server)[0])
    until(lambda: metric(server, "qvl_ready_replicas") == 2)
    assert server.post("a").status_code == 200
    [folder] = tmp_path.glob("qvl-metrics-*")
    files = list(folder.iterdir())
    assert len(files) == 2 * len(counts._KINDS)
    assert all(each.stat().st_blocks * 512 >= each.stat().st_size >= counts._BYTES for each in files)
    with pytest.raises(BlockingIOError):
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_a_dead_replica_held_is_no_longer_counted(tmp_path: Path) -> None:
    counts.take_room(tmp_path, 0)
    kept = {each: each.stat().st_blocks for each in tmp_path.iterdir()}
    for each in kept:
        each.write_bytes(b"\1" * counts._BYTES)
    counts.forget_gauges(tmp_path, 0)
    emptied = {each.name for each in kept if not any(each.read_bytes()[:8])}
    assert emptied == {"gauge_livesum_0.db", "gauge_livemax_0.db"}
    assert {each: each.stat().st_blocks for each in kept} == kept


def test_a_folder_of_metrics_that_is_gone_comes_back(start: Start, tmp_path: Path) -> None:
    server = ready(start())
    first, second = replicas(server)
    [folder] = tmp_path.glob("qvl-metrics-*")
    shutil.rmtree(folder)
    assert server.post("a").status_code == 200
    for number, old in enumerate((first, second), 1):
        killed(server, old)
        until(lambda: metric(server, "qvl_ready_replicas") == number)  # noqa: B023 - it is over within the turn
    assert server.post("a").status_code == 200


def test_a_replica_that_starts_again_takes_what_the_others_took(start: Start, tmp_path: Path) -> None:
    """The hub's `main` may be another commit by then."""
    server = ready(start("noted"))
    first, second = replicas(server)
    assert (tmp_path / f"offline-{first.pid}").read_text() == ""
    killed(server, first)
    until(lambda: metric(server, "qvl_ready_replicas") == 2)
    [new] = {each.pid for each in replicas(server)} - {first.pid, second.pid}
    assert (tmp_path / f"offline-{new}").read_text() == "1"


def test_as_process_1_the_supervisor_leaves_no_zombies(start: Start) -> None:
    server = ready(start("parent"))
    first, second = replicas(server)
    [engine] = first.children()
    first.kill()
    until(lambda: not engine.is_running())  # a zombie would be
    until(lambda: metric(server, "qvl_ready_replicas") == 2)
    assert len(replicas(server)) == 2
    assert second.is_running()
