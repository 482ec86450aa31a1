"""Replicas that cannot start, or hang: what the supervisor makes of it, and when it gives up."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from qvl.engine.config import EngineConfig, ServerConfig
from qvl.engine.port import DIED
from qvl.engine.replicas import supervisor
from qvl.engine.replicas.channel import BEAT_SECONDS
from qvl.engine.replicas.child import LATE_SECONDS, Child
from qvl.engine.replicas.orders import Orders
from tests import web
from tests.engine.http import test_replicas
from tests.engine.http.fake_replica import STALL_SECONDS
from tests.engine.http.running import Start
from tests.engine.http.test_replicas import ready
from tests.replicas import metric, replicas, until

start = test_replicas.start


def test_what_no_replica_can_be_is_told_at_once(start: Start) -> None:
    server = start("refuse", log_level="warning")
    assert server.wait() == 2
    out, err = server.process.communicate()
    assert (out, err) == ("", "x is not a checkpoint\n")


def test_what_may_pass_is_tried_again_before_it_ends_the_server(start: Start) -> None:
    server = start("not_yet")
    assert server.wait() == DIED
    out, err = server.process.communicate()
    assert out == ""
    assert err.count("has ended (x: the engine did not start: no device); it starts again in") == 4
    assert "ended 3 times before it was ready (x: the engine did not start: no device)" in err


def test_and_may_have_passed_by_then(start: Start) -> None:
    server = ready(start("later"))
    assert server.post("a").status_code == 200


def test_replicas_that_never_get_ready_end_the_server(start: Start, tmp_path: Path) -> None:
    server = start("crash")
    assert server.wait() == 3
    assert "ended 3 times before it was ready (status 9)" in server.process.communicate()[1]
    assert not list(tmp_path.glob("qvl-metrics-*"))


def test_a_replica_that_never_gets_ready_does_not_end_the_others(start: Start, tmp_path: Path) -> None:
    """A bad GPU, say; though it has failed often before another was ready."""
    server = start("one_bad")
    until(lambda: web.probe(f"{server.url}/health/ready") == 200)
    assert server.process.stdout
    assert server.process.stdout.readline().endswith("; 1 of 2 replicas\n")
    crashes = len(list(tmp_path.glob("crash-*")))
    until(lambda: len(list(tmp_path.glob("crash-*"))) > crashes)
    assert server.post("a").status_code == 200
    assert metric(server, "qvl_ready_replicas") == 1
    server.signal()
    assert server.wait() == 0
    assert "replica 1 has ended (status 9); it starts again in" in server.process.communicate()[1]


def test_a_replica_that_hangs_gets_no_more_and_is_replaced(start: Start) -> None:
    server = ready(start("hang"))
    first, second = replicas(server)
    first.suspend()
    time.sleep(LATE_SECONDS + 2 * BEAT_SECONDS)  # until then one may still be handed to it
    for _ in range(10):
        assert server.post("a").status_code == 200
    until(lambda: not first.is_running())
    until(lambda: metric(server, "qvl_ready_replicas") == 2)
    assert second.is_running()
    server.signal()
    assert server.wait() == 0
    assert f" has been silent for {STALL_SECONDS:g} s" in server.process.communicate()[1]


def test_a_pause_of_the_whole_machine_hangs_nothing(start: Start) -> None:
    """The supervisor wakes first, and finds all others silent for long."""
    server = ready(start("hang"))
    both, supervisor = replicas(server), psutil.Process(server.process.pid)
    for each in (supervisor, *both):
        each.suspend()
    time.sleep(STALL_SECONDS + 2 * BEAT_SECONDS)
    supervisor.resume()
    time.sleep(BEAT_SECONDS / 2)
    for each in both:
        each.resume()
    time.sleep(3)  # a second after which it would have been killed
    assert server.post("a").status_code == 200
    assert replicas(server) == both
    server.signal()
    assert server.wait() == 0


def test_a_process_that_cannot_be_had_has_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For want of memory, say: it is tried again after a pause, and the others go on."""
    config = ServerConfig(engine=EngineConfig(embedder="x"))

    async def started() -> tuple[bool, bool, str | None]:
        child = Child((), Orders(0, config, tmp_path, None))
        child.start()
        return child.alive, await child.settled(), child.error

    monkeypatch.setattr("sys.executable", "/no/such")
    assert asyncio.run(started()) == (False, False, "cannot start: /no/such: No such file or directory")


def test_a_process_that_cannot_be_watched_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No handle, or no thread, is left: the other replicas go on."""
    child = hanging(monkeypatch, tmp_path)

    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("os.pidfd_open", none_left)

    async def started() -> tuple[bool, bool, str | None]:
        child.start()
        return child.alive, await child.settled(), child.error

    assert asyncio.run(started()) == (False, False, "cannot start: Too many open files")
    assert child.status == -signal.SIGKILL


def test_one_that_ends_in_disorder_has_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = hanging(monkeypatch, tmp_path)
    monkeypatch.setattr("qvl.engine.replicas.child.forget_gauges", lambda *_: 1 / 0)

    async def ended() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        monkeypatch.setattr("threading.Thread.start", lambda _: 1 / 0)  # there is none for what waits
        child.start()
        child.stop()
        await asyncio.wait_for(child.gone(), 120)

    asyncio.run(ended())
    assert child.status == -signal.SIGTERM


def hanging(monkeypatch: pytest.MonkeyPatch, folder: Path, *notes: str) -> Child:
    """One whose process tells `notes`, and no more."""
    script = folder / "hanging"
    tell = f"for note in {notes!r}: os.write(int(sys.argv[-1]), note.encode())"
    script.write_text(f"#!{sys.executable} -S\nimport os, sys, time\n{tell}\ntime.sleep(60)\n")
    script.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(script))
    config = ServerConfig(engine=EngineConfig(embedder="x", stall_seconds=0.1))
    return Child((), Orders(0, config, folder, None))


def over(child: Child) -> supervisor._Supervisor:
    return supervisor._Supervisor([child], None, ServerConfig(engine=EngineConfig(embedder="x")))


def test_one_that_hangs_while_it_loads_is_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    child = hanging(monkeypatch, tmp_path)
    for name, value in (("_LOADING_SECONDS", 0.05), ("_LOAD_SECONDS", 0.1), ("_PAUSES_SECONDS", (0,))):
        monkeypatch.setattr(supervisor, name, value)
    caplog.set_level(logging.INFO)
    assert asyncio.run(asyncio.wait_for(over(child)._keep(child), 120)) == DIED
    assert caplog.messages.count("replica 0 has been loading for 0.05 s") == supervisor._ATTEMPTS
    assert caplog.messages.count("replica 0 has ended (status -9); it starts again in 0 s") == 2


def test_one_that_hangs_on_its_way_out_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = hanging(monkeypatch, tmp_path, '{"type":"Ready","models":["m"]}', '{"type":"Refusing"}')
    monkeypatch.setattr(supervisor, "_WATCH_SECONDS", 0.02)

    async def watched() -> bool:
        child.start()
        ready = await child.settled()
        await asyncio.wait_for(over(child)._watched(child), 120)
        return ready

    try:
        assert asyncio.run(watched())
        assert child.status == -signal.SIGKILL
    finally:
        child.kill()
