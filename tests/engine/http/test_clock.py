"""A wall clock that jumps decides nothing: deadlines, rates and pauses go by one that only runs on."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from tests import web
from tests.engine.http import test_server
from tests.engine.http.running import ROOT, Running, Start
from tests.engine.http.test_server import in_flight, ready
from tests.replicas import load, until
from tests.tools import faketime

start = test_server.start

REQUEST_SECONDS = 10
WALL_CLOCK = {
    "engine/api/information.py": 1,  # `created` of a model
    "engine/client/retry.py": 1,  # a Retry-After that is a date
    "engine/dialects/vllm.py": 1,  # `created` of an answer
}


def test_the_wall_clock_is_read_where_a_date_is_told() -> None:
    read = re.compile(r"\btime\.time(_ns)?\(|\bdatetime\b.*\b(now|utcnow|today)\(")
    found = {
        str(path.relative_to(ROOT)): len(read.findall(path.read_text()))
        for room in ("engine", "kernels", "ray_serve")
        for path in (ROOT / room).rglob("*.py")
        if "demo" not in path.parts
    }
    assert {name: count for name, count in found.items() if count} == WALL_CLOCK


def test_a_clock_that_jumps_is_noticed_by_nobody(start: Start, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": faketime(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    server = ready(start(request=REQUEST_SECONDS, environment=environment))
    began = time.monotonic()
    waiting = in_flight(server)
    with load(lambda: server.post("a").status_code) as statuses:
        for days in (1, -1):
            clock.write_text(f"{86400 * days:+d}")
            wait_for_clock(server, timedelta(days=days))
    assert set(statuses) == {200}, statuses
    assert waiting.result(timeout=60).status_code == 504  # neither at the jump forward nor a day later
    assert time.monotonic() - began > REQUEST_SECONDS
    assert web.get(f"{server.url}/health/ready", timeout=60).status_code == 200


def wait_for_clock(server: Running, ahead: timedelta) -> None:
    """Until the server's own date, which it tells with each answer, is so far from ours."""

    def jumped() -> bool:
        told = web.get(f"{server.url}/health/live", timeout=60).headers["date"]
        return abs(parsedate_to_datetime(told) - datetime.now(UTC) - ahead) < timedelta(hours=1)

    until(jumped)
