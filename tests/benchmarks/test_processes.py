"""Servers come up and always go down; the client counts what it should."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks import load, meter
from benchmarks.load import Clients, Shot
from benchmarks.processes import DidNotStart, Server, run, serving
from benchmarks.rows import ROOT
from tests.replicas import gone, until

HTTP = """
import http.server, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(400 if b"bad" in body else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = answer
    def log_message(self, *_): pass
child = subprocess.Popen(["VLLM::EngineCore", "600"], executable="/bin/sleep")
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with serving("echo", _command, {}, health="/", log=log, seconds=120) as running:
        yield running


def _command(port: int) -> list[str]:
    return [sys.executable, "-c", HTTP, str(port)]


def test_a_server_and_its_children_are_gone_afterwards(tmp_path: Path) -> None:
    with serving("echo", _command, {}, health="/", log=tmp_path / "log", seconds=120) as running:
        found = meter.tree(running.pid)
        assert running.alive
        assert len(found) == 2
    assert not any(psutil.pid_exists(process.pid) for process in found)
    assert not running.alive


def test_also_when_the_block_fails(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        serving("echo", _command, {}, health="/", log=tmp_path / "log", seconds=120) as running,
    ):
        raise KeyboardInterrupt
    assert not running.alive


def test_also_when_the_harness_is_killed(tmp_path: Path) -> None:
    """Or a server would hold its GPU for the next run to trip over."""
    code = (
        "import sys, time; from pathlib import Path; from benchmarks.processes import started\n"
        f"command = [sys.executable, '-c', {HTTP!r}]\n"
        f"with started('echo', lambda port: [*command, str(port)], {{}}, health='/', "
        f"log=Path({str(tmp_path / 'log')!r}), seconds=120) as begun:\n"
        "    print(begun.ready().pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as harness:
        assert harness.stdout
        server, child = meter.tree(int(harness.stdout.readline()))
        harness.kill()
        assert gone([server])
    child.kill()  # it stands for vLLM's, which end with their parent


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with (
        pytest.raises(DidNotStart, match="exit code 1") as caught,
        serving("broken", lambda _: command, {}, health="/", log=tmp_path / "log", seconds=120),
    ):
        pass
    assert caught.value.tail == "no such model"


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(DidNotStart, match="not done after"):
        run([sys.executable, "-c", "import time; time.sleep(600)"], {}, log=tmp_path / "log", seconds=0.5)


def test_cpu_is_counted_by_side(server: Server) -> None:
    sides = [meter.is_engine(process) for process in meter.tree(server.pid)]
    assert sides == [False, True]
    with meter.measured(server.pid, gpu=False) as usage:
        load.closed(server.url, [Shot("/", b"x", 1)] * 200, 4, 30)
    assert usage.cpu.api > 0
    assert usage.memory_gb > 0
    assert usage.gpu_busy(0, time.monotonic()) is None


def test_a_gpu_is_busy_between_two_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    """Warm-up, and the clients' own way down, are not the server's."""
    say = "echo \"$(date '+%Y/%m/%d %H:%M:%S.%3N'), $share\""
    loop = f"for share in 10 90 50 '[N/A]'; do {say}; sleep 0.1; done"
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{loop}\ntouch {tmp_path}/said\nexec sleep 60\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with meter.measured(server.pid, gpu=True) as usage:
        until((tmp_path / "said").exists)
    [first, second, third] = [moment for moment, _ in usage.gpu]
    assert usage.gpu_busy(second, third) == pytest.approx(0.7)
    assert usage.gpu_busy(first, time.monotonic()) == pytest.approx(0.5)
    assert usage.gpu_busy(third + 10, third + 20) is None


def test_work_after_a_sleep_is_compared_with_the_same_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the former the median counts, of the latter the least."""
    costs = iter([0.003, 0.002, *[0.004] * 48, 0.1, 0.02, 0.03, 0.01, 0.9])
    monkeypatch.setattr(meter, "_little_work", lambda: next(costs))
    monkeypatch.setattr(meter, "_NAP_SECONDS", 0)
    assert meter.waking.__wrapped__() == pytest.approx(0.03 / 0.002)
    assert next(costs, None) is None


def test_every_shot_is_sent_once_and_the_first_answers_are_kept(server: Server) -> None:
    shots = [Shot("/", str(number).encode(), 3) for number in range(50)]
    turn = load.closed(server.url, shots, 8, 30, keep=2)
    assert [timing.status for timing in turn.timings] == [200] * 50
    assert turn.bodies == [b"0", b"1"]
    assert turn.failure == ""


def test_time_ends_a_turn(server: Server) -> None:
    turn = load.closed(server.url, [Shot("/", b"x", 1)] * 1_000_000, 2, 0.2)
    assert 2 <= len(turn.timings) < 1_000_000


def test_failures_are_told(server: Server) -> None:
    turn = load.closed(server.url, [Shot("/", b"bad input", 1)], 1, 30)
    assert turn.failure == "HTTP 400: bad input"
    lost = load.closed("http://127.0.0.1:9", [Shot("/", b"x", 1)], 1, 30)
    assert lost.timings[0].status == 0


def test_open_loop_keeps_its_own_pace(server: Server) -> None:
    shots = [Shot("/", str(number).encode(), 1) for number in range(100)]
    turn = load.opened(server.url, shots, rate=200, seed=1, keep=2)
    assert len(turn.timings) == 100
    assert all(timing.answered >= timing.asked for timing in turn.timings)
    assert turn.bodies == [b"98", b"99"]
    assert turn.failure == ""
    assert "400" in load.opened(server.url, [Shot("/", b"bad", 1)], rate=200, seed=1).failure


def test_client_processes_share_the_shots(server: Server) -> None:
    shots = [Shot("/", str(number).encode(), 1) for number in range(40)]
    with Clients(2) as clients:
        turn = clients.closed(server.url, shots, 4, 30, keep=2)
    assert len(turn.timings) == 40
    assert turn.bodies == [b"0", b"1"]
