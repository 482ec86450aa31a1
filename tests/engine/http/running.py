"""A server over the stand-in engine, as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests import web
from tests.ports import free_port

ROOT = Path(__file__).parents[3]
E = "/v1/embeddings"


@dataclass
class Running:
    process: subprocess.Popen[str]
    url: str

    def post(self, text: str) -> httpx.Response:
        return web.post(self.url + E, json={"input": text}, timeout=120)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 300) -> int:
        return self.process.wait(seconds)


Start = Callable[..., Running]


@contextmanager
def running(
    module: str, *arguments: object, port: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """`python -m tests.engine.http.MODULE PORT ARGUMENTS`; killed at the end."""
    port = port or free_port()
    with subprocess.Popen(
        [sys.executable, "-m", f"tests.engine.http.{module}", str(port), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield Running(process, f"http://127.0.0.1:{port}")
        finally:
            process.kill()
