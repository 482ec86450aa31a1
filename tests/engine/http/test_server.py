"""`serve` as a process of its own, over the stand-in engine: probes, draining, death, exit codes."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests import web
from tests.engine.conftest import Run, lines_of
from tests.engine.http.running import Running, Start, running
from tests.engine.http.test_edge import connect, head
from tests.replicas import until


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(loading=0, stopping=0, drain=8, request=120, tls="", port=..., environment=..., host="::")`,
    with any setting; all are killed at the end.

    `loading`: seconds, or "refused", until it has refused somebody.
    """
    with ExitStack() as stack:

        def run(
            *,
            loading: float | str = 0,
            stopping: float = 0,
            drain: float = 8,
            request: float = 120,
            tls: str = "",
            port: int | None = None,
            environment: Mapping[str, str] | None = None,
            **settings: object,
        ) -> Running:
            fixed, more = (loading, stopping, drain, request, tls), json.dumps(settings)
            server = running("serve_fake", *fixed, more, port=port, environment=environment)
            return stack.enter_context(server)

        yield run


def ready(server: Running) -> Running:
    until(lambda: web.probe(f"{server.url}/health/ready") == 200)
    return server


def in_flight(server: Running) -> Future[httpx.Response]:
    """A request that does not end by itself, once it has arrived."""
    answer = ThreadPoolExecutor(1).submit(server.post, "!slow")
    until(lambda: "qvl_requests_in_flight 2.0" in web.get(f"{server.url}/metrics").text)
    return answer


def test_ready_line_and_a_stop_at_rest(start: Start) -> None:
    server = ready(start(drain=600))
    assert server.post("a").status_code == 200
    server.signal()
    assert server.wait() == 0
    out, err = server.process.communicate()
    assert out == f"qvl is ready on {server.url}: tiny-embedder (embedder), tiny-reranker (reranker)\n"
    assert re.fullmatch(r"\S+ \S+ INFO qvl.server qvl .*\n", err)


def test_probes_while_loading(start: Start) -> None:
    server = start(loading=3600)
    until(lambda: web.probe(f"{server.url}/health/live") == 200)
    assert web.get(f"{server.url}/health/ready").status_code == 503
    answer = server.post("a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "starting")
    listed = web.get(f"{server.url}/v1/models")
    assert (listed.status_code, listed.json()["error"]["code"]) == (503, "starting")
    server.signal()
    assert server.wait() == 0


def test_a_job_waits_for_the_models_and_says_so(start: Start, source: Path, qvl: Run, tmp_path: Path) -> None:
    server, out = start(loading="refused"), tmp_path / "out.jsonl"
    until(lambda: web.probe(f"{server.url}/health/live") == 200)
    said = qvl("embed", source, "-o", out, "--url", server.url)
    assert (
        said.count(f"waiting for the server at {server.url}: this replica takes no requests: starting") == 1
    )
    assert len(lines_of(out)) == 50


def test_draining_ends_at_its_time(start: Start) -> None:
    server = ready(start(drain=2))
    answer = in_flight(server)
    server.signal()
    assert answer.result().status_code == 503
    assert server.wait() == 0


def test_draining_takes_no_more_and_a_second_signal_cuts(start: Start) -> None:
    server = ready(start(drain=600))
    answer = in_flight(server)
    server.signal(signal.SIGINT)
    until(lambda: web.probe(f"{server.url}/health/ready") == 503)
    refused = server.post("a")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    # Where others stand behind the same address, one of them gets the next connection.
    assert refused.headers["connection"] == "close"
    server.signal(signal.SIGINT)
    assert answer.result().status_code == 503
    assert server.wait() == 0


def test_an_upload_that_is_not_done_at_the_end_is_told_so(start: Start) -> None:
    server = ready(start(drain=1))
    with connect(server.url) as sock:
        sock.sendall(head(100) + b'{"input"')
        until(lambda: "qvl_requests_in_flight 2.0" in web.get(f"{server.url}/metrics").text)
        server.signal()
        said = b"".join(iter(lambda: sock.recv(2000), b""))
    assert b" 503 " in said and b'"draining"' in said
    assert server.wait() == 0
    assert "Traceback" not in server.process.communicate()[1]


def test_an_engine_that_does_not_stop_is_left(start: Start) -> None:
    server = ready(start(stopping=3600, drain=1))
    server.signal()
    assert server.wait() == 0


def test_death_ends_requests_and_the_server(start: Start) -> None:
    server = ready(start())
    answer = in_flight(server)
    assert server.post("!die").status_code == 503
    assert answer.result().status_code == 503
    assert server.wait() == 3
    assert "the engine of x has died" in server.process.communicate()[1]


def test_a_port_in_use_is_told_before_anything_is_loaded(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = start(port=taken.getsockname()[1], loading=3600)
        assert server.wait() == 2
    out, err = server.process.communicate()
    assert out == ""
    assert err.count("\n") == 1
    assert "is in use" in err


def test_every_address_is_that_of_both_families(start: Start) -> None:
    server = ready(start(host="::"))
    port = server.url.rpartition(":")[2]
    for each in ("127.0.0.1", "[::1]"):
        assert web.get(f"http://{each}:{port}/health/ready").status_code == 200
    server.signal()
    assert server.wait() == 0
    assert server.process.communicate()[0].startswith(f"qvl is ready on http://[::]:{port}: ")


@pytest.mark.parametrize("sent", [b"", b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"], ids=["new", "kept"])
def test_an_idle_connection_is_kept_as_long_as_was_said(start: Start, sent: bytes) -> None:
    server = ready(start(keep_alive_seconds=2))
    began = time.monotonic()
    with connect(server.url) as sock:
        sock.sendall(sent)
        said = b"".join(iter(lambda: sock.recv(2000), b""))
    assert time.monotonic() - began > 1.9
    assert (b" 200 OK" in said, b"connection: close" in said) == (bool(sent), False)
