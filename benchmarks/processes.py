"""Servers as child processes: started, waited for, and stopped whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import httpx
import psutil

from benchmarks import meter

STOP_SECONDS = 15.0
_POLL_SECONDS = 0.25
_TAIL_LINES = 12


class DidNotStart(Exception):
    """A contestant that cannot take part, and why, in one line; its log's end is in `tail`."""

    def __init__(self, message: str, tail: str = "") -> None:
        super().__init__(message)
        self.tail = tail


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    url: str
    pid: int
    log: Path

    @property
    def alive(self) -> bool:
        with suppress(psutil.Error):
            return bool(psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        return False

    def memory(self) -> float:
        """MiB that its processes hold on their own."""
        whole = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        return float(sum(each.memory_full_info().uss for each in whole) / (1 << 20))


Serving: TypeAlias = AbstractContextManager[Server]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    name: str,
    command: Callable[[int], Sequence[str]],
    environment: Mapping[str, str],
    *,
    health: str,
    log: Path,
    seconds: float,
) -> Iterator[Server]:
    """A server on a port of its own, ready when this yields. Raises DidNotStart."""
    port = free_port()
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(command(port)),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        server = Server(name, f"http://127.0.0.1:{port}", process.pid, log)
        _await(server, process, health, seconds)
        yield server
    finally:
        stop(process)


def run(command: Sequence[str], environment: Mapping[str, str], *, log: Path, seconds: float) -> None:
    """A command to its end, with all it started. Raises DidNotStart when it fails or takes too long."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(command),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        if code := process.wait(seconds):
            raise DidNotStart(f"ended with exit code {code} (log: {log})", tail(log))
    except subprocess.TimeoutExpired:
        raise DidNotStart(f"was not done after {seconds:.0f} s (log: {log})", tail(log)) from None
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask, then kill: the process and all that it has started."""
    below = meter.tree(process.pid)[1:]
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in below:
        with suppress(psutil.Error):
            child.kill()
    process.wait(STOP_SECONDS)
    psutil.wait_procs(below, timeout=STOP_SECONDS)


def tail(log: Path) -> str:
    lines = [line.rstrip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-_TAIL_LINES:])


def _await(server: Server, process: subprocess.Popen[bytes], health: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    with httpx.Client(base_url=server.url, timeout=5, trust_env=False) as client:
        while True:
            with suppress(httpx.TransportError):
                if client.get(health).status_code == 200:
                    return
            if process.poll() is not None:
                raise DidNotStart(
                    f"{server.name} ended with exit code {process.returncode} while starting "
                    f"(log: {server.log})",
                    tail(server.log),
                )
            if time.monotonic() > deadline:
                raise DidNotStart(
                    f"{server.name} was not ready after {seconds:.0f} s (log: {server.log})",
                    tail(server.log),
                )
            time.sleep(_POLL_SECONDS)
