"""Looking at a server of several replicas from outside: its processes, their connections, its metrics."""

from __future__ import annotations

import inspect
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import httpx
import psutil
import pytest

from tests import web

CLIENTS = 4
_PAUSE_SECONDS = 0.1
"""Of a client between two requests: a replica that comes back meanwhile needs the cores too."""


class Running(Protocol):
    @property
    def process(self) -> Any: ...

    @property
    def url(self) -> str: ...


def until(condition: Callable[[], bool], seconds: float = 300) -> None:
    """What a dying process takes with it says nothing about the condition: it is asked again."""
    deadline = time.monotonic() + seconds
    broken: httpx.TransportError | psutil.NoSuchProcess | None = None
    while time.monotonic() < deadline:
        try:
            if condition():
                return
            broken = None
        except (httpx.TransportError, psutil.NoSuchProcess) as error:
            broken = error
        time.sleep(0.05)
    pytest.fail(f"not within {seconds:g} s: {inspect.getsource(condition).strip()} ({broken or 'false'})")


def metric(server: Running, name: str) -> float:
    """Of all replicas, whichever answers; 0 while there is no such series."""
    found = re.search(
        rf"^{re.escape(name)} (\S+)$", web.get(f"{server.url}/metrics", timeout=60).text, re.MULTILINE
    )
    return float(found[1]) if found else 0.0


def replicas(server: Running) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children()


def family(*parents: psutil.Process) -> list[psutil.Process]:
    """They and all that they have started."""
    return [*parents, *(child for parent in parents for child in parent.children(recursive=True))]


def gone(processes: list[psutil.Process], seconds: float = 120) -> bool:
    """Soon; one that only waits to be reaped has gone."""

    def lives(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    deadline = time.monotonic() + seconds
    while left := [each for each in processes if lives(each)]:
        if time.monotonic() > deadline:
            pytest.fail(f"alive after {seconds:g} s: {left}")
        time.sleep(0.05)
    return True


def connections(server: Running) -> Counter[int]:
    """How many clients each replica has, by process: until it has closed them, as it counts them itself."""
    port = int(server.url.rpartition(":")[2])
    found: Counter[int] = Counter()
    for replica in replicas(server):
        found[replica.pid] = sum(
            each.status in (psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT) and each.laddr.port == port
            for each in replica.net_connections("tcp")
        )
    return found


@contextmanager
def load(ask: Callable[[], int]) -> Iterator[Counter[int]]:
    """CLIENTS threads that ask over and over; the statuses they get, 0 where the connection broke."""
    statuses: Counter[int] = Counter()
    over = threading.Event()

    def work() -> None:
        while not over.wait(_PAUSE_SECONDS):
            try:
                statuses[ask()] += 1
            except httpx.TransportError:
                statuses[0] += 1

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        over.set()
        for thread in threads:
            thread.join()
