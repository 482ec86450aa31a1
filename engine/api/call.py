"""One HTTP call, and the line that the log has of it: nothing of what was asked is in it."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import time
from dataclasses import dataclass, field

import msgspec

from qvl.engine.api.auth import ANYONE, OPEN_PATHS
from qvl.engine.api.operations import OPERATIONS
from qvl.engine.errors import ClientClosed, Overloaded, QvlError, Unavailable
from qvl.engine.logs import FIELDS

MOST_LINES = 50
"""Of refusals in a second: strangers who are refused at the speed of the wire must not fill a disk."""
ENDING = ("draining", "engine_stopped")
_SECOND = 1.0
_STEP = re.compile(r"\.?(\w+)|\[(?:\d{1,6}|\.\.\.)\]")
_log = logging.getLogger("qvl.http")


@dataclass(slots=True)
class Call:
    """As far as it has got."""

    route: str
    id: str
    started: float = field(default_factory=time.perf_counter)
    status: int | None = None
    error: QvlError | None = None
    caller: str = ANYONE.name

    @property
    def leads_elsewhere(self) -> bool:
        """Whether this server ends: who asks again on a kept connection would be told so once more."""
        return isinstance(self.error, Unavailable) and self.error.code in ENDING

    @property
    def refused_for_load(self) -> bool:
        return isinstance(self.error, Overloaded) and self.error.code == Overloaded.code


class Lines:
    """Belongs to one event loop.

    A defect is an error; a refusal is told too, so that who was refused finds it by its id. What a client
    that has gone, a probe, and one that is to come again were told is left to the metrics, as successes are.
    """

    def __init__(self) -> None:
        _names()  # not while somebody waits
        self._since = float("-inf")
        self._told = self._more = 0

    def tell(self, call: Call, status: int, seconds: float) -> None:
        level = _level(call.route, status)
        if not _log.isEnabledFor(level) or (level == logging.INFO and not self._may()):
            return
        fields = {
            "id": call.id,
            "key": call.caller,
            "route": call.route,
            "status": status,
            "code": call.error.code if call.error else "-",
            "param": ours(call.error.param or "") if call.error else "-",
            "seconds": round(seconds, 3),
        }
        said = " ".join(f"{name}={value}" for name, value in fields.items())
        _log.log(level, "request %s", said, extra={FIELDS: fields})

    def _may(self) -> bool:
        now = time.monotonic()
        if now - self._since >= _SECOND:
            self._sum_up()
            self._since, self._told = now, 0
        self._told += 1
        if self._told <= MOST_LINES:
            return True
        if not self._more:
            asyncio.get_running_loop().call_later(_SECOND, self._sum_up)
        self._more += 1
        return False

    def _sum_up(self) -> None:
        if self._more:
            _log.info("%d more requests were refused, without a line each", self._more)
        self._more = 0


def _level(route: str, status: int) -> int:
    if status == QvlError.status:
        return logging.ERROR
    if status < 400 or status in (Overloaded.status, ClientClosed.status) or route in OPEN_PATHS:
        return logging.DEBUG
    return logging.INFO


def ours(param: str) -> str:
    """What an error names of a request, up to the first name that the caller made: a key of a record or a
    filter, a field that there is not."""
    end = 0
    for step in _STEP.finditer(param):
        if step.start() != end or (step[1] and step[1] not in _names()):
            break
        end = step.end()
    return param[:end] or "-"


@functools.cache
def _names() -> frozenset[str]:
    """Of every field of every body."""
    _, found = msgspec.json.schema_components({operation.body for operation in OPERATIONS})
    return frozenset(name for schema in found.values() for name in schema.get("properties", ()))
