"""Every error a caller can see: one tree, each class with its HTTP status and type.

    QvlError                  500  server_error
    ├── RequestError               the caller's to mend
    │   ├── BadRequest        400  malformed body, wrong type, unknown field, bad value
    │   ├── Unauthorized      401
    │   │   └── Forbidden     403  the key is for something else
    │   ├── NotFound          404  route or model
    │   ├── MethodNotAllowed  405  carries `allowed`
    │   ├── TooLarge          413  a limit on bytes, items, pixels, frames or seconds
    │   ├── UnsupportedMedia  415  not an image or video, or a format not accepted
    │   ├── Unprocessable     422  well formed, yet cannot be answered (undecodable, too long, refused URL)
    │   └── HeadTooLarge      431  the request line and the headers
    ├── Overloaded            429  carries `retry_after`
    ├── ClientClosed          499
    ├── Unavailable           503  starting, draining, or the engine died
    └── DeadlineExceeded      504

`CheckpointError` and `ConfigError` are raised at start-up, before there is a caller.
"""

from __future__ import annotations

from typing import Self

MEDIA_NOT_BEGUN = "media_not_begun"
"""Code of a medium that is refused for others of its request: sent without them it may be answered."""


class QvlError(Exception):
    """Base of all; `param` names the part of the request, e.g. `input[3].image`."""

    status = 500
    type = "server_error"
    code = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code

    def entry(self) -> dict[str, str | None]:
        """On the wire, as a part of an answer."""
        return {"message": self.message, "type": self.type, "code": self.code, "param": self.param}

    def body(self) -> dict[str, str | dict[str, str | None]]:
        """As a whole answer, equal for every route: clients of Voyage, Jina and Weaviate read `detail`, those
        of Cohere `message`, and DashScope's fails without a `code`."""
        return {"error": self.entry(), "detail": self.message, "code": self.code, "message": self.message}

    def bare(self) -> Self:
        """Without the frames it came through. They hold bodies and pixels, and, once one of them has kept the
        error, hold each other until the garbage collector comes."""
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self


class RequestError(QvlError):
    """The caller's to mend."""

    type = "invalid_request_error"


class BadRequest(RequestError):
    status = 400
    code = "invalid_request"


class Unauthorized(RequestError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(Unauthorized):
    status = 403
    code = "not_for_this_key"


class NotFound(RequestError):
    status = 404
    code = "not_found"


class MethodNotAllowed(RequestError):
    status = 405
    code = "method_not_allowed"
    allowed = ""
    """Methods that the route takes, as the `Allow` header has them."""


class TooLarge(RequestError):
    status = 413
    code = "too_large"


class UnsupportedMedia(RequestError):
    status = 415
    code = "unsupported_media"


class Unprocessable(RequestError):
    status = 422
    code = "unprocessable"


class Overloaded(QvlError):
    """Refused early; try again after `retry_after` seconds."""

    status = 429
    type = "overloaded_error"
    code = "overloaded"

    def __init__(
        self, message: str, *, retry_after: float = 1.0, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.retry_after = retry_after


class HeadTooLarge(RequestError):
    status = 431
    code = "head_too_large"


class ClientClosed(QvlError):
    status = 499
    type = "client_closed"
    code = "client_closed"


class Unavailable(QvlError):
    status = 503
    type = "unavailable_error"
    code = "unavailable"


class DeadlineExceeded(QvlError):
    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"


class ConfigError(Exception):
    """A setting that cannot work; the message is one line that says what to do."""


class CheckpointError(ConfigError):
    """A checkpoint that cannot be served; the message is one line that says why."""


class NotStarted(CheckpointError):
    """By what may pass: a device or a hub that is not there yet, memory that is still another's."""


def short(text: str, most: int = 80) -> str:
    """What somebody else has chosen, as messages hold it."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
