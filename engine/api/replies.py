"""An answer that is made whole before its first byte leaves."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import Send

JSON = "application/json"


async def reply(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    fields = [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})
