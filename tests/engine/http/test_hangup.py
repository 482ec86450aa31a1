"""SIGHUP: keys and certificates are read again, and nobody who has a right to ask notices."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import web
from tests.engine.http import test_replicas, test_server
from tests.engine.http.running import ROOT, E, Running
from tests.ports import free_port
from tests.replicas import load, replicas, until

one = test_server.start
several = test_replicas.start
kinds = pytest.mark.parametrize("kind", ["one", "several"])


def asked(server: Running, key: str) -> int:
    headers = {"authorization": f"Bearer {key}"}
    return web.post(server.url + E, json={"input": "a"}, headers=headers, timeout=120).status_code


def started(kind: str, keys: Path, request: pytest.FixtureRequest) -> Running:
    server: Running = request.getfixturevalue(kind)(api_key_file=str(keys))
    until(lambda: web.probe(f"{server.url}/health/ready") == 200)
    if kind == "several":
        assert server.process.stdout
        assert server.process.stdout.readline().endswith("; 2 replicas\n")
    return server


@kinds
def test_a_key_is_rotated_under_load(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("old\nstays\n")
    server = started(kind, keys, request)
    before = replicas(server)
    assert (asked(server, "old"), asked(server, "new")) == (200, 401)
    with load(lambda: asked(server, "stays")) as statuses:
        keys.write_text("new\nstays\n")
        server.signal(signal.SIGHUP)
        # Whichever replica is asked.
        until(lambda: [asked(server, "new") for _ in range(8)] == [200] * 8)
        assert [asked(server, "old") for _ in range(8)] == [401] * 8
        until(lambda: statuses[200] > 40)
    assert set(statuses) == {200}
    # One server alone has none, only what it asks at its start and what ends by itself.
    assert kind == "one" or replicas(server) == before
    server.signal()
    assert server.wait() == 0
    err = server.process.communicate()[1]
    assert err.count("SIGHUP: API keys read again") == (2 if kind == "several" else 1)


@kinds
def test_a_bad_file_changes_nothing(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("old\n")
    server = started(kind, keys, request)
    assert server.process.stderr
    said, each = "", 2 if kind == "several" else 1
    for rounds, bad in enumerate(("new rpm=many\n", "# none\n", None), 1):
        keys.unlink() if bad is None else keys.write_text(bad)
        server.signal(signal.SIGHUP)
        while said.count("; kept the old API keys") < each * rounds:
            said += (line := server.process.stderr.readline())
            assert line, said
        assert [asked(server, "old") for _ in range(4)] == [200] * 4
        assert asked(server, "new") == 401
    keys.write_text("new\n")
    server.signal(signal.SIGHUP)
    until(lambda: [asked(server, "old") for _ in range(4)] == [401] * 4)
    server.signal()
    assert server.wait() == 0
    err = said + server.process.stderr.read()
    assert err.count("; kept the old API keys") == 3 * each
    assert err.count("the rpm of the API key 'key-1' must be a number") == each
    assert "Traceback" not in err


def test_a_replica_that_has_just_begun_to_start_lives(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Its process has no handler of the signal yet; it is told when it listens."""
    keys = tmp_path / "keys"
    keys.write_text("old\n")
    server: Running = request.getfixturevalue("several")(api_key_file=str(keys))
    until(lambda: len(replicas(server)) == 2)
    both = replicas(server)
    (new := tmp_path / "new").write_text("new\n")
    new.replace(keys)  # whole, if a replica is about to read it
    server.signal(signal.SIGHUP)
    until(lambda: web.probe(f"{server.url}/health/ready") == 200)
    assert [asked(server, "new") for _ in range(8)] == [200] * 8
    assert replicas(server) == both


def test_the_end_of_its_terminal_stops_it() -> None:
    port, (ours, theirs) = free_port(), pty.openpty()
    given = [str(port), "0", "0", "8", "120", "", "{}"]
    arguments = [sys.executable, "-m", "tests.engine.http.serve_fake", *given]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(arguments, cwd=ROOT, env=environment, stdin=theirs) as process:
        os.close(theirs)
        try:
            until(lambda: web.probe(f"http://127.0.0.1:{port}/health/ready") == 200)
            process.send_signal(signal.SIGHUP)
            assert process.wait(300) == 0
        finally:
            process.kill()
            os.close(ours)
