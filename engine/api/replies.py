"""An answer that is made whole before its first byte leaves."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Send

JSON = "application/json"


async def reply(
    send: Send, status: int, body: bytes, kind: str = JSON, headers: Mapping[str, str] | None = None
) -> None:
    fields = {"content-type": kind, "content-length": str(len(body)), **(headers or {})}
    encoded = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": False})
