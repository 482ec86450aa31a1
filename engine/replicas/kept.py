"""A connection that a replica was given: its supervisor hears when it is over, and that is not never."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from qvl.engine.connection import Connection

KEPT_SECONDS = (120.0, 300.0)
"""After which a client is asked to connect again: at least and at most, so that not all do at once. They keep
connections for hours, and a replica that came back meanwhile would get none of their work."""


class Kept(Connection):
    def __init__(self, lost: Callable[[], None], **settings: Any) -> None:
        super().__init__(**settings)
        self._lost = lost
        self._until = time.monotonic() + random.uniform(*KEPT_SECONDS)
        self._app = self.app
        self.app = self._answer

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            # Nothing may have come behind this request: it would get no answer.
            last = self._whole and not self.pipeline and time.monotonic() > self._until
            if last and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, sent)
