"""Every failure of a request, whoever raised it, as `QvlError.body()`."""

from __future__ import annotations

import logging
import math

from starlette.exceptions import HTTPException
from starlette.types import Send

from qvl.engine.api.replies import reply
from qvl.engine.errors import (
    MethodNotAllowed,
    NotFound,
    Overloaded,
    QvlError,
    Unauthorized,
    Unavailable,
)
from qvl.engine.logs import FIELDS
from qvl.engine.response import dump

_UNAVAILABLE_RETRY_SECONDS = 5
_log = logging.getLogger("qvl.http")


def to_error(failure: Exception, path: str, request_id: str) -> QvlError:
    """The error to tell the caller; what is nobody's error is logged here and told as a 500."""
    if isinstance(failure, QvlError):
        return failure
    if isinstance(failure, HTTPException) and failure.status_code in (
        NotFound.status,
        MethodNotAllowed.status,
    ):
        return _of_router(failure)
    fields = {"id": request_id, "route": path}
    _log.error("request failed id=%s route=%s", request_id, path, exc_info=failure, extra={FIELDS: fields})
    return QvlError(f"internal error; the server's log has it under request id {request_id}")


async def send_error(send: Send, error: QvlError) -> None:
    await reply(send, error.status, dump(error.body()), headers=_headers(error))


def _of_router(failure: HTTPException) -> QvlError:
    if failure.status_code == NotFound.status:
        return NotFound("there is no such route; /docs lists those there are", code="route_not_found")
    error = MethodNotAllowed("this route does not take that method; /docs lists what it takes")
    error.allowed = (failure.headers or {}).get("Allow", "")
    return error


def _headers(error: QvlError) -> list[tuple[bytes, bytes]]:
    """What the status asks for beside the body."""
    if isinstance(error, Overloaded):
        return [(b"retry-after", b"%d" % max(1, math.ceil(error.retry_after)))]
    if isinstance(error, Unavailable):
        return [(b"retry-after", b"%d" % _UNAVAILABLE_RETRY_SECONDS)]
    if isinstance(error, Unauthorized):
        return [(b"www-authenticate", b"Bearer")]
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", error.allowed.encode())]
    return []
