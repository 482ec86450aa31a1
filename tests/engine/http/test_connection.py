"""HTTP/1.1 as clients bend it: heads without end, requests on top of each other, another protocol."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from qvl.engine import connection
from qvl.engine.connection import HEAD_BYTES, MOST_WAITING
from tests.engine.http.conftest import on_a_port
from tests.engine.http.fake import FakeEngine
from tests.engine.http.test_edge import E, connect, head

GET = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
BODY, BUSY = b'{"input": "a"}', b'{"input": "!busy"}'
POST, REFUSED = head(len(BODY)) + BODY, head(len(BUSY)) + BUSY
CHUNKED = f"POST {E} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n".encode()


def rest(sock: socket.socket) -> bytes:
    """All that comes until the server closes, which with bytes unread is a reset."""
    said = b""
    with suppress(ConnectionError):
        while got := sock.recv(1 << 16):
            said += got
    return said


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
        with pytest.raises(ConnectionError):
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
        with suppress(ConnectionError):  # it may close before all has come
            sock.sendall(POST + GET * 1000)
        said = rest(sock)
    assert statuses(said) == [200] * (1 + MOST_WAITING)
    assert said.count(b"connection: close") == 1


def test_what_comes_before_nonsense_is_answered(live: str) -> None:
    with connect(live) as sock:
        sock.sendall(POST + GET + b"nonsense\r\n\r\n")
        assert statuses(rest(sock)) == [200, 200]


@pytest.mark.parametrize("whole", [1, 3])
def test_what_comes_before_half_a_request_is_answered(live: str, whole: int) -> None:
    with connect(live) as sock:
        sock.sendall(POST * whole + CHUNKED + b"\r\nnonsense\r\n")
        said = rest(sock)
    assert statuses(said) == [200] * whole
    assert said.count(b'"usage"') == whole


def test_nonsense(live: str) -> None:
    with connect(live) as sock:
        sock.sendall(b"nonsense\r\n\r\n")
        fields, _, body = rest(sock).partition(b"\r\n\r\n")
    assert statuses(fields) == [400]
    assert json.loads(body)["error"]["code"] == "invalid_http"


class TestOneThatIsToEnd:
    """With an answer behind which nothing has come: an old one, or one refused by a replica that is full."""

    @pytest.fixture
    def aged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "KEPT_SECONDS", (0, 0))

    @pytest.fixture(params=["old", "refused"])
    def ending(self, request: pytest.FixtureRequest, engine: FakeEngine) -> Iterator[tuple[str, bytes, int]]:
        """Where, what to ask first, and the status of its answer."""
        if old := request.param == "old":
            request.getfixturevalue("aged")
        with on_a_port(engine, None if old else lambda: None) as url:
            yield (url, POST, 200) if old else (url, REFUSED, 429)

    @pytest.mark.parametrize("behind", [0, 3])
    def test_all_that_came_at_once_is_answered(self, ending: tuple[str, bytes, int], behind: int) -> None:
        url, first, status = ending
        with connect(url) as sock:
            sock.sendall(first + GET * behind)
            said = rest(sock)
        assert statuses(said) == [status] + [200] * behind
        assert said.count(b"connection: close") == 1
        assert b"connection: close" in said[said.rindex(b"HTTP/1.1 ") :]

    @pytest.mark.parametrize("half", [POST[:-3], GET[:-3]], ids=["body", "head"])
    def test_so_is_what_had_begun_to_come(self, ending: tuple[str, bytes, int], half: bytes) -> None:
        url, first, status = ending
        with connect(url) as sock:
            sock.sendall(first + half)
            assert answer(sock)[0] == status
            sock.sendall((POST if half in POST else GET)[-3:])
            said = rest(sock)
        assert statuses(said) == [200]
        assert b"connection: close" in said

    @pytest.mark.usefixtures("aged")
    def test_one_that_is_answered_before_its_body_is_told_too(self, engine: FakeEngine) -> None:
        with on_a_port(engine) as url, connect(url) as sock:
            sock.sendall(b"POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n")
            assert b"connection: close" in rest(sock)

    def test_a_young_one_is_kept(self, live: str) -> None:
        with connect(live) as sock:
            for _ in range(3):
                sock.sendall(POST)
                assert answer(sock)[0] == 200


H2C = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQBAAAAAAUAAEAA")
PLAIN = "\r\n".join((f"POST {E} HTTP/1.1", "host: x", *H2C)).encode() + b"\r\n"
LENGTH = PLAIN + b"content-length: %d\r\n" % len(BODY)
PIECES = PLAIN + b"transfer-encoding: chunked\r\n"
IN_PIECES = b"6\r\n" + BODY[:6] + b"\r\n%x\r\n" % len(BODY[6:]) + BODY[6:] + b"\r\n0\r\n\r\n"


class TestAnotherProtocol:
    """What the JDK's HttpClient sends over plain http, as LangChain4j and Spring AI do."""

    @pytest.mark.parametrize(
        ("head", "body"), [(LENGTH, BODY), (PIECES, IN_PIECES)], ids=["length", "chunked"]
    )
    @pytest.mark.parametrize("cuts", [(), (30,), (-1,), (-3, -1), (-len(IN_PIECES),)], ids=str)
    def test_is_not_spoken(self, live: str, head: bytes, body: bytes, cuts: tuple[int, ...]) -> None:
        whole = head + b"\r\n" + body
        with connect(live) as sock:
            for _ in range(3):
                at = 0
                for cut in (*cuts, len(whole)):
                    cut %= len(whole) + 1
                    sock.sendall(whole[at:cut])
                    at = cut
                    time.sleep(0.02)
                assert answer(sock)[0] == 200
            sock.sendall(POST)
            assert answer(sock)[0] == 200

    @pytest.mark.parametrize(
        ("head", "body"), [(LENGTH, BODY), (PIECES, IN_PIECES)], ids=["length", "chunked"]
    )
    def test_after_the_server_has_said_to_go_on(self, live: str, head: bytes, body: bytes) -> None:
        with connect(live) as sock:
            for _ in range(2):
                sock.sendall(head + b"expect: 100-continue\r\n\r\n")
                assert sock.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
                sock.sendall(body)
                assert answer(sock)[0] == 200

    def test_several_at_once(self, live: str) -> None:
        one = LENGTH + b"\r\n" + BODY
        with connect(live) as sock:
            sock.sendall(one * 3 + POST)
            assert [answer(sock)[0] for _ in range(4)] == [200] * 4

    def test_many_at_once(self, live: str) -> None:
        with connect(live) as sock:
            with suppress(ConnectionError):  # as above
                sock.sendall((LENGTH + b"\r\n" + BODY) * 500)
            assert statuses(rest(sock)) == [200] * (1 + MOST_WAITING)

    def test_without_a_body(self, live: str) -> None:
        with connect(live) as sock:
            for _ in range(2):
                sock.sendall(GET[:-2] + "\r\n".join((*H2C, "", "")).encode())
                assert answer(sock)[0] == 200

    def test_close_is_still_heard(self, live: str) -> None:
        with connect(live) as sock:
            sock.sendall(LENGTH.replace(b"Upgrade,", b"close, Upgrade,") + b"\r\n" + BODY)
            assert statuses(rest(sock)) == [200]

    @pytest.mark.parametrize("target", ["x:443", "/health/live", "http://x/health/live"])
    def test_no_tunnel(self, live: str, target: str) -> None:
        with connect(live) as sock:
            sock.sendall(f"CONNECT {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            assert statuses(rest(sock)) == [400]
