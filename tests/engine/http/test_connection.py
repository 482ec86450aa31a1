"""HTTP/1.1 as clients bend it: heads without end, requests on top of each other, another protocol."""

from __future__ import annotations

import json
import re
import socket

import pytest

from qvl.engine.connection import HEAD_BYTES, MOST_WAITING
from tests.engine.http.test_edge import E, connect, head

GET = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
BODY = b'{"input": "a"}'
POST = head(len(BODY)) + BODY
CHUNKED = f"POST {E} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n".encode()


def rest(sock: socket.socket) -> bytes:
    """All that comes until the server closes."""
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def statuses(said: bytes) -> list[int]:
    return [int(each) for each in re.findall(rb"HTTP/1.1 (\d+) ", said)]


def answer(sock: socket.socket) -> tuple[int, bytes]:
    """The next one on a connection that is kept."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += (got := sock.recv(1))
        assert got, "closed"
    length = int(re.search(rb"content-length: (\d+)", said)[1])
    return statuses(said)[0], sock.recv(length, socket.MSG_WAITALL)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * HEAD_BYTES,
        b"GET / HTTP/1.1\r\nx: " + b"a" * HEAD_BYTES,
        b"GET / HTTP/1.1\r\nx: " + b"a" * HEAD_BYTES + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * (HEAD_BYTES // 6),
    ],
    ids=["target", "header", "whole", "headers"],
)
def test_a_head_has_a_bound(live: str, head: bytes) -> None:
    with connect(live) as sock:
        sock.sendall(head[:1000])
        sock.sendall(head[1000:])
        fields, _, body = rest(sock).partition(b"\r\n\r\n")
    assert statuses(fields) == [431]
    assert b"connection: close" in fields
    assert json.loads(body)["error"]["code"] == "head_too_large"


@pytest.mark.parametrize("start", [b"1\r\n{\r\n0\r\nx: ", b"1;"], ids=["trailer", "extension"])
def test_so_has_what_stands_around_a_body(live: str, start: bytes) -> None:
    with connect(live) as sock:
        sock.sendall(CHUNKED + b"\r\n" + start)
        with pytest.raises(OSError):
            for _ in range(500):
                sock.sendall(b"a" * HEAD_BYTES)


def test_what_is_below_the_bound_is_served(live: str) -> None:
    with connect(live) as sock:
        for _ in range(2):
            sock.sendall(head(len(BODY), "x: " + "a" * (HEAD_BYTES - 1000)) + BODY)
            assert answer(sock)[0] == 200


def test_a_body_of_many_small_chunks_is_served(live: str) -> None:
    spaces = b"1\r\n \r\n" * HEAD_BYTES
    with connect(live) as sock:
        sock.sendall(CHUNKED + b"\r\n" + spaces + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
        assert answer(sock)[0] == 200


def test_requests_on_top_of_each_other(live: str) -> None:
    with connect(live) as sock:
        sock.sendall(POST + GET * MOST_WAITING)
        assert [answer(sock)[0] for _ in range(1 + MOST_WAITING)] == [200] * (1 + MOST_WAITING)
        sock.sendall(POST)
        assert answer(sock)[0] == 200


def test_too_many_of_them_are_not_kept(live: str) -> None:
    """Those that came first are answered."""
    with connect(live) as sock:
        sock.sendall(POST + GET * 1000)
        said = rest(sock)
    assert statuses(said) == [200] * (1 + MOST_WAITING)
    assert said.count(b"connection: close") == 1


def test_what_comes_before_nonsense_is_answered(live: str) -> None:
    with connect(live) as sock:
        sock.sendall(POST + GET + b"nonsense\r\n\r\n")
        assert statuses(rest(sock)) == [200, 200]


def test_nonsense(live: str) -> None:
    with connect(live) as sock:
        sock.sendall(b"nonsense\r\n\r\n")
        fields, _, body = rest(sock).partition(b"\r\n\r\n")
    assert statuses(fields) == [400]
    assert json.loads(body)["error"]["code"] == "invalid_http"
