"""uvicorn's HTTP/1.1 connection, with an end to the patience that it lacks: for a head, and for a body that
nobody reads any more. A body that is being read has the request's deadline."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

DAWDLE_SECONDS = 10.0
"""For a request's head from its first byte, and for the rest of a body after its answer."""


class Connection(HttpToolsProtocol):
    """Requests that come whole pay for two flags; timers are for those that do not."""

    _owed = False
    """Whether the client has to send something that no deadline covers."""
    _whole = True
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # uvicorn counts a connection as idle only after its first answer.
        self._wait(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle()
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

    def _close(self) -> None:
        self._timer = None
        self.transport.close()
