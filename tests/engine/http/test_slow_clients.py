"""A client that dawdles loses its connection and nobody else waits for it."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import psutil
import pytest

from qvl.engine import connection
from qvl.engine.config import Limits
from tests.engine.http.conftest import on_a_port
from tests.engine.http.fake import FakeEngine
from tests.engine.http.test_edge import GOOD, E, connect, head
from tests.replicas import until

DAWDLE = 0.4
MANY = 10_000
"""Vectors of an answer that no kernel's buffer takes whole."""


@pytest.fixture
def live(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(connection, "DAWDLE_SECONDS", DAWDLE)
    with on_a_port(engine, api_key=("k",), limits=Limits(items=MANY)) as url:
        yield url


def drip(sock: socket.socket, data: bytes) -> bytes:
    """Send byte after byte until the server closes; what it had said."""
    said = b""
    sock.settimeout(0.05)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            sock.sendall(data[:1])
            if not (got := sock.recv(1000)):
                return said
            said += got
        except TimeoutError:
            data = data[1:] or data
        except OSError:
            return said
    raise AssertionError("the connection is still open")


def test_line_ends_behind_an_answer_are_no_request(engine: FakeEngine) -> None:
    """The parser passes over them; a connection that is kept for them would be kept for ever."""
    with on_a_port(engine, keep_alive_seconds=1) as url, connect(url) as sock:
        body = json.dumps(GOOD).encode()
        sock.sendall(head(len(body)) + body)
        assert b" 200 " in sock.recv(1000)
        drip(sock, b"\r\n" * 1000)


def test_a_head_that_never_ends(live: str) -> None:
    with connect(live) as sock:
        start = time.monotonic()
        sock.sendall(b"POST /v1/embeddings HTTP/1.1\r\n")
        assert drip(sock, b"x-a: " + b"a" * 1000) == b""
        assert time.monotonic() - start >= DAWDLE


def test_a_body_that_goes_on_after_its_answer(live: str) -> None:
    """A 401 is told before the body is read; the rest of it must not keep the connection."""
    with connect(live) as sock:
        sock.sendall(head(1_000_000))
        assert b" 401 " in drip(sock, b"a" * 1000)


@pytest.mark.parametrize("end", ["keep-alive", "close"])
def test_an_answer_that_nobody_takes(live: str, end: str) -> None:
    """Megabytes wait for this client; it reads some, then no more."""
    body = json.dumps({"input": ["a"] * MANY}).encode()
    with connect(live) as sock:
        port = int(live.rpartition(":")[2])
        ours = sock.getsockname()

        def held() -> bool:
            found = psutil.Process().net_connections("tcp")
            return any(each.laddr.port == port and each.raddr == ours for each in found)

        until(held)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(head(len(body), "authorization: Bearer k", f"connection: {end}") + body)
        assert b" 200 " in sock.recv(1000)
        until(lambda: not held())


def test_an_answer_that_is_taken_slowly_comes_whole(live: str) -> None:
    body = json.dumps({"input": ["a"] * MANY}).encode()

    def taken() -> bool:
        """Whole; where this machine stood still meanwhile, nothing was taken either, so it may be cut."""
        said, began = b"", time.monotonic()
        with connect(live) as sock, suppress(ConnectionError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
            sock.sendall(head(len(body), "authorization: Bearer k", "connection: close") + body)
            while got := sock.recv(1 << 17):
                said += got
                time.sleep(DAWDLE / 20)
        fields, _, come = said.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", fields)
        whole = length is not None and len(come) == int(length[1])
        assert not whole or time.monotonic() - began > DAWDLE
        return whole

    until(taken)


def test_a_slow_body_within_the_deadline_is_served(live: str) -> None:
    body = b'{"input": "a"}'
    with connect(live) as sock:
        sock.sendall(head(len(body), "authorization: Bearer k"))
        for byte in body:
            time.sleep(2 * DAWDLE / len(body))
            sock.sendall(bytes([byte]))
        assert b" 200 " in sock.recv(1000)


def test_so_is_one_that_began_before_the_answer_of_another(live: str) -> None:
    body = b'{"input": "a"}'
    one = head(len(body), "authorization: Bearer k") + body
    with connect(live) as sock:
        sock.sendall(one + one[:-1])
        time.sleep(2 * DAWDLE)
        sock.sendall(one[-1:])
        said = b""
        while said.count(b'"usage"') < 2:
            said += (got := sock.recv(1 << 16))
            assert got
        assert said.count(b" 200 OK") == 2


def test_a_connection_is_used_again(live: str) -> None:
    with httpx.Client(base_url=live, timeout=120, headers={"authorization": "Bearer k"}) as client:
        for _ in range(3):
            assert client.post(E, json=GOOD).status_code == 200
            time.sleep(DAWDLE * 1.5)


def test_two_hundred_slow_clients_hold_up_nobody(live: str) -> None:
    with (
        ExitStack() as stack,
        httpx.Client(base_url=live, timeout=120, headers={"authorization": "Bearer k"}) as client,
    ):
        client.post(E, json=GOOD)
        for place in range(200):
            sock = stack.enter_context(connect(live))
            sock.sendall(head(100, "authorization: Bearer k") if place % 2 else b"POST / HT")
        start = time.process_time()
        for _ in range(20):
            assert client.post(E, json=GOOD).status_code == 200
        assert (time.process_time() - start) / 20 < 0.1
        # Nor has any of them ended meanwhile that is yet to send its body.
        until(lambda: "qvl_requests_in_flight 101.0" in client.get("/metrics").text)
