"""What tests of a server's end share: requests that take long, and a look at its processes."""

from __future__ import annotations

from contextlib import suppress

import httpx
import psutil

from tests import web
from tests.conftest import Server
from tests.replicas import family

LONG = "many words to read " * 200
REQUESTS = 24
REFUSED = -1


def ask(server: Server, number: int) -> int:
    """The status, or REFUSED when the connection was."""
    body = {"input": [f"{number} {each} {LONG}" for each in range(4)]}
    try:
        return web.post(f"{server.url}/v1/embeddings", json=body, timeout=60).status_code
    except httpx.HTTPError:
        return REFUSED


def children(server: Server) -> list[psutil.Process]:
    return family(psutil.Process(server.process.pid))[1:]


def engines(server: Server) -> list[psutil.Process]:
    return [each for each in children(server) if "EngineCore" in titled(each)]


def titled(process: psutil.Process) -> str:
    """Nothing once it has ended."""
    with suppress(psutil.NoSuchProcess):
        return f"{process.name()} {' '.join(process.cmdline())}"
    return ""
