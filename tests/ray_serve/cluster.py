"""A cluster of its own under test: started by a command, watched through HAProxy's statistics, taken down."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import pytest

from qvl.ray_serve.config import PREFIXES, Pool
from tests import web
from tests.ray_serve.front import free_port
from tests.replicas import gone

KEY = "secret"
KEYED = {"authorization": f"Bearer {KEY}"}
START_SECONDS = 900
STOP_SECONDS = 300


class Cluster:
    """`with Cluster([module, ...]) as cluster`; whatever is left of it is killed on the way out."""

    READY = b"qvl is ready on"

    def __init__(self, command: list[str], log: Path) -> None:
        self.port, self.stats, metrics = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self.folder = tempfile.mkdtemp(prefix="qr-")  # short: it holds Unix sockets
        own = {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": self.folder}
        self.environment = {**os.environ, **own}
        ports = {"port": self.port, "stats-port": self.stats, "metrics-port": metrics}
        self._command = [
            sys.executable,
            "-m",
            *command,
            *(f"--{name}={port}" for name, port in ports.items()),
        ]

    def __enter__(self) -> Self:
        try:
            if not self._begins():
                self.__exit__(None, None, None)
                Path(self.folder).mkdir(mode=0o700)
                assert self._begins(), self._log.read_text()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _begins(self) -> bool:
        """False where Ray's own node was late: it has 30 s, whatever else the machine has to do."""
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                self._command, stdout=out, stderr=subprocess.STDOUT, env=self.environment
            )
        self.main = psutil.Process(self.process.pid)
        ends = self.READY, b"The current node timed out during startup"
        self.wait(lambda: any(end in self._log.read_bytes() for end in ends), START_SECONDS)
        return self.READY in self._log.read_bytes()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            for each in [*self.family(), self.main]:
                each.kill()
            self.process.wait()
        for folder in (self.folder, Path(tempfile.gettempdir()) / f"qvl-{os.getuid()}-{self.port}"):
            shutil.rmtree(folder, ignore_errors=True)

    def wait(self, done: Callable[[], bool], seconds: float) -> None:
        """Until it is so; fails with the log when it is not in time, or the cluster has ended.

        Where nobody answers yet, or one that is asked has just ended, it is not so yet.
        """
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx.HTTPError, psutil.Error, subprocess.SubprocessError):
                if done():
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"not so within {seconds:g} s:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """It ends with 0 and leaves no process."""
        family = self.family()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(STOP_SECONDS) == 0
        assert gone(family)

    def family(self) -> list[psutil.Process]:
        return self.main.children(recursive=True) if self.main.is_running() else []

    def said(self) -> str:
        """What all replicas have logged."""
        logs = Path(self.folder, "ray/session_latest/logs/serve").glob("replica_*.log")
        return "".join(log.read_text() for log in logs)

    def replicas(self) -> list[psutil.Process]:
        return [each for each in self.family() if "ray::ServeReplica" in title(each)]

    def up(self, pool: str) -> int:
        """Replicas of a pool to which HAProxy sends requests."""
        text = web.get(f"http://127.0.0.1:{self.stats}/stats;csv", timeout=60).text
        rows = csv.DictReader(text.removeprefix("# ").splitlines())
        return sum(f"-qvl-{pool}-" in row["svname"] and row["status"].startswith("UP") for row in rows)

    def metric(self, pool: Pool, name: str) -> list[float]:
        """Of each replica of a pool, by its own port; 0 where there is no such series yet."""
        found = []
        for replica in (each for each in self.replicas() if f"qvl-{pool}" in title(each)):
            ports = [each.laddr.port for each in replica.net_connections() if each.status == "LISTEN"]
            [port] = [each for each in ports if 30000 <= each < 31000]
            url = f"http://127.0.0.1:{port}{PREFIXES[pool].rstrip('/')}/metrics"
            page = web.get(url, headers=KEYED, timeout=60).raise_for_status()
            value = re.search(rf"^{re.escape(name)} (\S+)$", page.text, re.MULTILINE)
            found.append(float(value[1]) if value else 0.0)
        return found

    def post(self, path: str, headers: dict[str, str] = KEYED, **body: Any) -> dict[str, Any]:
        answer = web.post(self.url + path, json=body, headers=headers, timeout=120)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
