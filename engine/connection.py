"""uvicorn's HTTP/1.1 connection, with an end to the patience that it lacks: for a head, for a body that
nobody reads any more, and for an answer that the client does not take; and with bounds on what it keeps: of
a head, and of requests that come before the answers of others. A body that is being read has the request's
deadline."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from itertools import chain
from typing import Any

import httptools
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from qvl.engine.errors import BadRequest, HeadTooLarge, QvlError
from qvl.engine.response import dump

DAWDLE_SECONDS = 10.0
"""For a request's head from its first byte, for the rest of a body after its answer, and for each
LEAST_BYTES of an answer to leave."""
LEAST_BYTES = 1 << 16
HEAD_BYTES = 1 << 16
"""Of a request's head; as much may follow its body or stand between two pieces of it."""
MOST_WAITING = 16
"""Requests on one connection that wait for the answers of those before them."""
KEPT_SECONDS = (120.0, 300.0)
"""After which an answer ends the connection: at least and at most, so that not all end at once. Clients keep
theirs for hours, and a replica, or a pod, that came meanwhile would get none of their work."""
_CLOSE = (b"connection", b"close")


class Connection(HttpToolsProtocol):
    """Requests that come whole pay for two flags; timers are for those that do not."""

    _owed = False
    """Whether the client has to send something that no deadline covers."""
    _whole = True
    _timer: asyncio.TimerHandle | None = None
    _leaving: asyncio.TimerHandle | None = None
    _loose = 0
    """Bytes that came since the last head, or piece of a body, was complete."""
    _before: RequestResponseCycle | None = None
    """The request before the newest one."""
    _refusal: QvlError | None = None
    """Why nothing is read any more."""
    _last = False
    """Its next answer behind which nothing has come ends it."""

    def __init__(self, *, lost: Callable[[], None] = lambda: None, **settings: Any) -> None:
        """`lost` hears its end."""
        super().__init__(**settings)
        self._until, self._lost = time.monotonic() + random.uniform(*KEPT_SECONDS), lost
        self._inner, self.app = self.app, self._answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's
        super().connection_made(transport)
        # uvicorn counts a connection as idle only after its first answer.
        self._wait(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle()
        if self._leaving is not None:
            self._leaving.cancel()
        super().connection_lost(exc)
        self.app = self._inner  # or each connection would be a cycle, for the collector
        self._lost()

    def data_received(self, data: bytes) -> None:
        if self._refusal:
            return
        self._loose += len(data)
        try:
            while data:
                data = self._feed(data)
        except httptools.HttpParserError:
            self._refuse(self._refusal or BadRequest("this is not HTTP/1.1", code="invalid_http"))
        if self._loose > HEAD_BYTES:
            self._refuse(_too_large())
        if self._owed and not self._whole:
            self._wait(DAWDLE_SECONDS)

    def _feed(self, data: bytes) -> bytes:
        """What is left of `data`: the parser stops at a head that asks for another protocol, as a JDK's
        client does with `Upgrade: h2c`. That may be ignored: the head is read once more, without it."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as found:
            version = self.parser.get_http_version().encode()
            asked = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
            kept = [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
            # This one may be done: it takes nothing after `Connection: close`.
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            return b"\r\n".join([*asked, *kept, b"", b""]) + data[found.args[0] :]
        return b""

    def _should_upgrade(self) -> bool:
        """uvicorn leaves such a head, and what follows it, to another protocol's parser: here, to ours."""
        return True

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MOST_WAITING:
            raise OverflowError  # the parser stops, and so do we
        self._settle()
        # Not for any bytes: the parser passes over line ends between two requests, without end.
        self._unset_keepalive_if_required()
        self._owed, self._whole = True, False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._settle()
        self._unset_keepalive_if_required()  # the answer before this may have come meanwhile
        come, self._loose = self._loose, 0
        if self.parser.get_method() == b"CONNECT":
            raise NotImplementedError  # a tunnel
        # What has come may hold a body, too.
        if come > HEAD_BYTES and sum(map(len, chain.from_iterable(self.headers)), len(self.url)) > HEAD_BYTES:
            self._refusal = _too_large()
            raise self._refusal
        self._before = self.cycle
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._settle()
        self._whole, self._loose = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if (left := self.transport.get_write_buffer_size()) and self._leaving is None:
            self._leaving = self.loop.call_later(DAWDLE_SECONDS, self._look, left)
        # The body of a request behind this one has that request's deadline.
        if self.cycle.response_complete and not self._whole and not self.transport.is_closing():
            self._owed = True
            self._wait(DAWDLE_SECONDS)

    def _answer(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The app, without a frame more for each message."""

        def sent(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                self._end_with(message)
            return send(message)

        return self._inner(scope, receive, sent)  # type: ignore[no-any-return]  # uvicorn tells no types of it

    def _end_with(self, message: Message) -> None:
        """Who asks to close waits for an answer behind which nothing has come: that would get none."""
        plain = [each for each in message["headers"] if each != _CLOSE]
        self._last |= len(plain) < len(message["headers"]) or time.monotonic() > self._until
        alone = not self.pipeline and (self._whole or self.cycle.more_body)
        message["headers"] = [*plain, _CLOSE] if self._last and alone else plain

    def _refuse(self, error: QvlError) -> None:
        """Read no more; requests that have come whole are answered first."""
        self._refusal, self._loose = error.bare(), 0
        self._settle()
        if self._before is not None and self.cycle.more_body and self.pipeline:
            self.pipeline.popleft()  # it came behind others, and not whole
            self.cycle = self._before
        if self.cycle is not None and not (self.cycle.more_body or self.cycle.response_complete):
            self.cycle.keep_alive = False
            return
        body = dump(error.body())
        fields = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            _CLOSE,
        ]
        head = b"".join(b"%b: %b\r\n" % field for field in fields)
        self.transport.write(STATUS_LINE[error.status] + head + b"\r\n" + body)
        self.transport.close()

    def _wait(self, seconds: float) -> None:
        """More bytes do not begin the time anew."""
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self._close)

    def _settle(self) -> None:
        self._owed = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, before: int) -> None:
        """What `close` would wait for without end: memory for a client that takes nothing."""
        self._leaving = None
        left = self.transport.get_write_buffer_size()
        if left > before - LEAST_BYTES:
            self.transport.abort()
        elif left:
            self._leaving = self.loop.call_later(DAWDLE_SECONDS, self._look, left)

    def _close(self) -> None:
        self._timer = None
        self.transport.close()


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"the request line and headers are over {HEAD_BYTES} bytes; send fewer or shorter ones"
    )
