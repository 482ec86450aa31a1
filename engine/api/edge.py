"""Around every HTTP call, matched or not: request id, key, deadline, hang-up, metrics, one log line."""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qvl.engine.admission import CALLER
from qvl.engine.api import failures
from qvl.engine.api.auth import Keys
from qvl.engine.api.bodies import Bodies
from qvl.engine.api.call import Call, Lines
from qvl.engine.errors import ClientClosed, DeadlineExceeded, QvlError, Unavailable
from qvl.engine.metrics import Metrics

PART = b"x-qvl-part"
"""On a request that is one replica's part of another, which was counted: its value is their seal."""

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_WATCH_SECONDS = 0.1


@dataclass(slots=True, eq=False)
class Edge:
    """Wraps the router, so that it sees the 404s and 405s too."""

    app: ASGIApp
    route: Callable[[str], str]
    """The metric label of a path: a stranger's paths must not become series."""
    keys: Keys
    """May be replaced by others."""
    seconds: float
    metrics: Metrics
    bodies: Bodies
    full: Callable[[], None] | None
    """Told before a refusal for load leaves, where other replicas answer at the same port."""
    seal: bytes | None = None
    """Known to the replicas of a deployment that divides requests, and to nobody else."""
    lines: Lines = field(default_factory=Lines)
    last: bool = False
    """Each answer is to be its connection's last."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["app"] = self  # without one the router answers in its own words
        scope["path"] = scope["path"].rstrip("/") or "/"
        call = Call(self.route(scope["path"]), _request_id(scope))

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                headers = [*message["headers"], (b"x-request-id", call.id.encode())]
                full = self.full if call.refused_for_load else None
                if full is not None:
                    full()
                if self.last or full is not None or call.leads_elsewhere:
                    # A kept connection would lead here again, the sooner since a refusal frees it at once.
                    # This is a wish: our `Connection` says first what has come behind it.
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            await send(message)

        try:
            with self.metrics.in_flight():
                await self._answer(scope, receive, tagged, call)
        finally:
            self._record(call)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, call: Call) -> None:
        try:
            caller = self.keys.caller(scope["path"], scope["headers"])
            call.caller = caller.name
            CALLER.set(caller.name)
            caller.check(scope["path"])
            if not self._counted(scope["headers"]):
                caller.count()
            if self.metrics.tracer is None:
                await self._work(scope, receive, send, call)
                return
            with self.metrics.tracer.request(call.route, call.id, scope["headers"]) as span:
                await self._work(scope, receive, send, call)
                span.set_attribute("http.response.status_code", call.status or 0)
        except QvlError as error:
            await self._fail(error, send, call)
        except asyncio.CancelledError:
            # Of those that are not done when the server ends; uvicorn would tell them of a defect.
            await self._fail(
                Unavailable("stopping; ask again, or another replica", code="draining"), send, call
            )

    def _counted(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether this request is a part of one that was counted where it came in."""
        seal = self.seal
        return seal is not None and any(n == PART and hmac.compare_digest(v, seal) for n, v in headers)

    async def _fail(self, error: QvlError, send: Send, call: Call) -> None:
        call.error = error.bare()
        if call.status is None:
            await failures.send_error(send, error)

    async def _work(self, scope: Scope, receive: Receive, send: Send, call: Call) -> None:
        """Run the app until it has answered, the deadline has passed or the client has gone."""
        watch = _Watch(receive, asyncio.timeout(self.seconds), self.bodies)
        try:
            try:
                async with watch.work:
                    await self.app(scope, watch.listen, send)
            finally:
                watch.close()
        except Exception as failure:  # noqa: BLE001 - the edge: a defect is logged and told as a 500
            ended = self._ended(watch) if isinstance(failure, TimeoutError) else None
            await self._fail(ended or failures.to_error(failure, call.route, call.id), send, call)

    def _ended(self, watch: _Watch) -> QvlError | None:
        """What ended the work from outside; None: nothing did."""
        if not watch.work.expired():
            return None
        if watch.gone:
            return ClientClosed("the client closed the connection")
        return DeadlineExceeded(f"not answered within {self.seconds:g} s (request_seconds); ask for less")

    def _record(self, call: Call) -> None:
        seconds = time.perf_counter() - call.started
        # A hang-up is told to nobody, but counts as what it was, whatever was sent into the void.
        status = 499 if isinstance(call.error, ClientClosed) else call.status or 500
        self.metrics.request(call.route, status, seconds, call.caller)
        if call.error:
            self.metrics.error(call.error.code, status, call.route)
        self.lines.tell(call, status, seconds)


class _Watch:
    """Counts the body, and ends the work once its client has hung up. It starts watching when the work has
    taken a while: to stop a short one saves nothing, and a task for each costs as much as the work's own."""

    def __init__(self, receive: Receive, work: asyncio.Timeout, bodies: Bodies) -> None:
        self.work = work
        self.gone = False
        self._bodies = bodies
        self._held = 0
        self._receive = receive
        self._start: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def listen(self) -> Message:
        """The app's `receive`; behind the body comes nothing but the hang-up."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientClosed("the client closed the connection")
        if message["type"] == "http.request":
            self._bodies.take(len(message["body"]))
            self._held += len(message["body"])
        if not message.get("more_body") and self._start is None:
            self._start = asyncio.get_running_loop().call_later(_WATCH_SECONDS, self._begin)
        return message

    def close(self) -> None:
        self._bodies.give_back(self._held)
        if self._start is not None:
            self._start.cancel()
        if self._task is not None:
            self._task.cancel()
            self._task = None  # which would hold what holds it

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.work.expired():
            self.gone = True
            self.work.reschedule(asyncio.get_running_loop().time())


def _request_id(scope: Scope) -> str:
    """The caller's own id when it is short and plain, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            return str(value, "ascii")
    return secrets.token_hex(16)
