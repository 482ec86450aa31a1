"""When to try again, after how long, and which error a reply means. No I/O: both clients share it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx
import orjson

from qvl.engine.errors import BadRequest, DeadlineExceeded, Overloaded, QvlError, Unavailable

_log = logging.getLogger("qvl.client")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How a client splits, waits and gives up."""

    items: int = 64
    """Items of one embedding request; longer lists are split."""
    documents: int = 256
    """Documents of one rerank request; longer lists are split."""
    body_bytes: int = 32 << 20
    """Bytes of one request body, after which a list is split too."""
    concurrency: int = 8
    """Requests of an AsyncClient under way at once."""
    deadline: float = 300.0
    """Seconds for one request, all tries together."""
    retries: int = 6
    """Further tries after 429, 502, 503 and lost connections."""
    backoff: float = 0.5
    """Seconds before the second try; doubles with each further one, half of it random."""
    longest_wait: float = 20.0
    """Seconds of one wait at most, unless the server's Retry-After asks for more."""
    connect: float = 5.0
    """Seconds to connect."""


class Attempts:
    """One request's tries: ask `timeout` before and `after` following each."""

    def __init__(
        self,
        policy: Policy,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy
        self.clock = clock
        self.jitter = jitter
        self.end = clock() + policy.deadline
        self.failures = 0

    def timeout(self) -> httpx.Timeout:
        left = max(self.end - self.clock(), 0.001)
        return httpx.Timeout(left, connect=min(left, self.policy.connect))

    def after(self, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """None: done; a number: try again after so many seconds. Otherwise raises what went wrong."""
        if isinstance(outcome, httpx.Response):
            if outcome.is_success:
                return None
            error = error_of(outcome)
            again = outcome.status_code in (429, 502, 503)
            asked = retry_after(outcome)
        else:
            error = lost(outcome)
            again = isinstance(error, Unavailable)
            asked = 0.0
        self.failures += 1
        pause = max(asked, self._backoff())
        if not again or self.failures > self.policy.retries or self.clock() + pause > self.end:
            raise error
        if self.failures == 1 and isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout):
            # Nobody may be there; who has the wrong address need not look at nothing for 20 s.
            _log.warning("%s; trying again, up to %d more", error.message, self.policy.retries)
        return pause

    def _backoff(self) -> float:
        full: float = min(self.policy.backoff * 2 ** min(self.failures - 1, 30), self.policy.longest_wait)
        return full * (0.5 + 0.5 * self.jitter())


def lost(failure: httpx.TransportError) -> QvlError:
    """A request without a reply. Requests change nothing on the server, so any lost one may be sent again."""
    if isinstance(failure, httpx.TimeoutException) and not isinstance(failure, httpx.ConnectTimeout):
        return DeadlineExceeded("no answer before the client's deadline")
    if isinstance(failure, httpx.UnsupportedProtocol | httpx.ProxyError | httpx.LocalProtocolError):
        return BadRequest(f"cannot send the request: {failure}")
    why = str(failure) or type(failure).__name__
    if "CERTIFICATE_VERIFY_FAILED" in why:
        return BadRequest(
            f"cannot trust the server: {why}; SSL_CERT_FILE=FILE.pem names an authority of your own"
        )
    with suppress(RuntimeError):  # an error that never belonged to a request
        why = f"{failure.request.url.netloc.decode()}: {why}"
    return Unavailable(f"cannot reach the server: {why}", code="connection_lost")


def error_of(response: httpx.Response) -> QvlError:
    """The error of our tree that a failed reply means, with the server's message, code and param."""
    try:
        body = orjson.loads(response.content)["error"]
        message = str(body["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        body = {}
        message = f"HTTP {response.status_code}: {response.text[:200].strip() or response.reason_phrase}"
    status = response.status_code
    cls = BY_STATUS.get(status) or (
        Unavailable if status == 502 else BadRequest if status < 500 else QvlError
    )
    error = cls(message, param=body.get("param"), code=body.get("code"))
    if isinstance(error, Overloaded):
        error.retry_after = retry_after(response) or error.retry_after
    return error


def retry_after(response: httpx.Response) -> float:
    """Seconds that `Retry-After` asks for, as a number or a date; 0 when it asks nothing sensible."""
    value = response.headers.get("retry-after", "")
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def _tree(cls: type[QvlError]) -> Iterator[type[QvlError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _tree(child)


BY_STATUS = {cls.status: cls for cls in _tree(QvlError) if "status" in vars(cls)}
BY_CODE = {cls.code: cls for cls in _tree(QvlError) if "code" in vars(cls)}
