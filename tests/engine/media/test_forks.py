"""The process that forks decoders: how it and its children begin and end."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from qvl.engine.media.decoders import ForkServer
from tests.replicas import until

LITTLE = 128 << 20


def test_one_that_is_killed_before_it_is_known_costs_no_other(
    forks: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reaped by then. To take that for the end of the fork server would end all other decoders."""
    other, server = forks.fork(), forks.pid
    killed: list[int] = []
    known = os.pidfd_open

    def late(pid: int) -> int:
        if not killed:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
            until(lambda: not psutil.pid_exists(pid))
        return known(pid)

    monkeypatch.setattr("os.pidfd_open", late)
    forks.fork().kill()
    assert killed and forks.pid == server
    signal.pidfd_send_signal(other._process, 0)  # it lives
    other.kill()


def test_one_whose_parent_has_gone_already_ends_too() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        call = f"worker._become_decoder({theirs.fileno()}, {LITTLE}, parent={os.getpid() + 1})"
        command = [sys.executable, "-c", f"from qvl.engine.media import worker; {call}"]
        assert subprocess.run(command, pass_fds=(theirs.fileno(),), timeout=60).returncode == 0


def test_a_server_that_ends_before_it_reads_an_answer_is_the_end_of_input() -> None:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-P", "-m", "qvl.engine.media.worker", str(theirs.fileno()), "1"]
    with subprocess.Popen(command, pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE) as process:
        theirs.close()
        select.select([ours], [], [], 60)
        ours.close()  # with `READY` unread
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(30) == 0
