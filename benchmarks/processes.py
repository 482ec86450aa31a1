"""Servers as child processes: started, waited for, and stopped whatever happens."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks import meter
from qvl.engine.port import free_port

STOP_SECONDS = 15.0
_POLL_SECONDS = 0.25
_TAIL_LINES = 12
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets when its parent ends."""


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


@dataclass(frozen=True, slots=True)
class Started:
    """A server that may not take requests yet."""

    server: Server
    process: subprocess.Popen[bytes]
    health: str
    deadline: float
    """Of the system's monotonic clock."""

    def ready(self) -> Server:
        """Waits until it answers. Raises DidNotStart, and then it is gone."""
        try:
            self._wait()
        except DidNotStart:
            stop(self.process)
            raise
        return self.server

    def _wait(self) -> None:
        name, log = self.server.name, self.server.log
        with httpx.Client(base_url=self.server.url, timeout=5, trust_env=False) as client:
            while True:
                with suppress(httpx.TransportError):
                    if client.get(self.health).status_code == 200:
                        return
                if (code := self.process.poll()) is not None:
                    raise DidNotStart(
                        f"{name} ended with exit code {code} while starting (log: {log})", tail(log)
                    )
                if time.monotonic() > self.deadline:
                    raise DidNotStart(f"{name} was not ready in time (log: {log})", tail(log))
                time.sleep(_POLL_SECONDS)


@contextmanager
def started(
    name: str,
    command: Callable[[int], Sequence[str]],
    environment: Mapping[str, str],
    *,
    health: str,
    log: Path,
    seconds: float,
) -> Iterator[Started]:
    """A server on a port of its own, to be ready within `seconds`, stopped at the end."""
    port = free_port()
    process = _begin(command(port), environment, log)
    try:
        server = Server(name, f"http://127.0.0.1:{port}", process.pid, log)
        yield Started(server, process, health, time.monotonic() + seconds)
    finally:
        stop(process)


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
    """As `started`, ready when this yields. Raises DidNotStart."""
    with started(name, command, environment, health=health, log=log, seconds=seconds) as begun:
        yield begun.ready()


def _begin(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(
            list(command),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )


def _end_with_parent() -> None:
    """A harness that is killed must not leave servers behind, which hold a GPU."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def run(command: Sequence[str], environment: Mapping[str, str], *, log: Path, seconds: float) -> None:
    """A command to its end, with all it started. Raises DidNotStart when it fails or takes too long."""
    process = _begin(command, environment, log)
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
