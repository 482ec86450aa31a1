"""Request bodies: one at a time within its bound, and all of them together within theirs."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Receive, Scope

from qvl.engine.config import Limits
from qvl.engine.errors import BadRequest, Overloaded, TooLarge

_RETRY_SECONDS = 1.0


class Bodies:
    """How much may be in memory at once: admission only sees what has come in whole.

    Belongs to one event loop. Counts what has come, not what was announced: a lie must cost its teller.
    """

    def __init__(self, limit: int, tell: Callable[[float], None]) -> None:
        """`tell` hears how much there is whenever that changes."""
        self._limit = limit
        self._tell = tell
        self._held = 0

    def take(self, size: int) -> None:
        """So many bytes more. Raises Overloaded when that is too much; then they are not counted."""
        if self._held + size > self._limit:
            raise Overloaded(
                f"bodies of {self._held} bytes are in memory, at most {self._limit} are taken "
                "(--bodies-bytes): try again later, or at another replica",
                retry_after=_RETRY_SECONDS,
                code="bodies_full",
            )
        self._held += size
        self._tell(self._held)

    def give_back(self, size: int) -> None:
        self._held -= size
        self._tell(self._held)


async def read(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """The whole body. Raises TooLarge as soon as it is announced or has come to be over its limit."""
    if _announced(scope) > limits.body_bytes:
        raise _too_large(limits)
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > limits.body_bytes:
            raise _too_large(limits)
        parts.append(part)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            try:
                return int(value)
            except ValueError:
                raise BadRequest("the Content-Length header is not a number") from None
    return 0


def _too_large(limits: Limits) -> TooLarge:
    return TooLarge(
        f"the body is larger than {limits.body_bytes} bytes (--body-bytes): send fewer items at once, or "
        "media, which base64 makes a third larger, by URL: one may have "
        f"{limits.media_bytes} bytes (--media-bytes)",
        code="body_too_large",
    )
