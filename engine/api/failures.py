"""Every failure of a request, whoever raised it, as `{"error": {message, type, code, param}}`."""

from __future__ import annotations

import logging
import math
from typing import TypeAlias

from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.types import HTTPResponseBodyEvent, HTTPResponseStartEvent

from qvl.engine.errors import (
    BadRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    QvlError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from qvl.engine.logs import FIELDS
from qvl.engine.response import dump

Headers: TypeAlias = dict[str, str]

_UNAVAILABLE_RETRY_SECONDS = 5
_log = logging.getLogger("qvl.http")


def to_error(failure: Exception, path: str, request_id: str, body_limit: int) -> QvlError:
    """The error to tell the caller; what is nobody's error is logged here and told as a 500."""
    if isinstance(failure, QvlError):
        return failure
    if isinstance(failure, NotFoundException):
        return NotFound("there is no such route; /docs lists those there are", code="route_not_found")
    if isinstance(failure, MethodNotAllowedException):
        return MethodNotAllowed("this route does not take that method; /docs lists what it takes")
    if isinstance(failure, HTTPException) and failure.status_code == TooLarge.status:
        return TooLarge(
            f"the body is larger than {body_limit} bytes (limits.body_bytes); send fewer items at once",
            code="body_too_large",
        )
    if isinstance(failure, HTTPException) and failure.status_code < 500:
        return BadRequest("the request is not valid HTTP for this route")
    fields = {"id": request_id, "route": path}
    _log.error("request failed id=%s route=%s", request_id, path, exc_info=failure, extra={FIELDS: fields})
    return QvlError(f"internal error; the server's log has it under request id {request_id}")


def headers(error: QvlError) -> Headers:
    """What the status asks for beside the body."""
    if isinstance(error, Overloaded):
        return {"retry-after": str(max(1, math.ceil(error.retry_after)))}
    if isinstance(error, Unavailable):
        return {"retry-after": str(_UNAVAILABLE_RETRY_SECONDS)}
    if isinstance(error, Unauthorized):
        return {"www-authenticate": "Bearer"}
    return {}


def response(error: QvlError) -> tuple[HTTPResponseStartEvent, HTTPResponseBodyEvent]:
    """The ASGI messages that answer with this error."""
    body = dump(error.body())
    fields = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **headers(error),
    }
    encoded = [(name.encode(), value.encode()) for name, value in fields.items()]
    return (
        {"type": "http.response.start", "status": error.status, "headers": encoded},
        {"type": "http.response.body", "body": body, "more_body": False},
    )
