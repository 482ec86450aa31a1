"""uvicorn's HTTP/1.1 connection, with an end to the patience that it lacks: for a head, for a body that
nobody reads any more, and for an answer that the client does not take. A body that is being read has the
request's deadline."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

DAWDLE_SECONDS = 10.0
"""For a request's head from its first byte, for the rest of a body after its answer, and for each
LEAST_BYTES of an answer to leave."""
LEAST_BYTES = 1 << 16


class Connection(HttpToolsProtocol):
    """Requests that come whole pay for two flags; timers are for those that do not."""

    _owed = False
    """Whether the client has to send something that no deadline covers."""
    _whole = True
    _timer: asyncio.TimerHandle | None = None
    _leaving: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's
        super().connection_made(transport)
        # uvicorn counts a connection as idle only after its first answer.
        self._wait(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle()
        if self._leaving is not None:
            self._leaving.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._owed and not self._whole:
            self._wait(DAWDLE_SECONDS)

    def on_message_begin(self) -> None:
        self._settle()
        self._owed, self._whole = True, False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._settle()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._settle()
        self._whole = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if (left := self.transport.get_write_buffer_size()) and self._leaving is None:
            self._leaving = self.loop.call_later(DAWDLE_SECONDS, self._look, left)
        if not self._whole and not self.transport.is_closing():
            self._owed = True
            self._wait(DAWDLE_SECONDS)

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
