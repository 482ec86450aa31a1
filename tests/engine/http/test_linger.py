"""`--linger-seconds`: a server that is told to end says so first, and still answers meanwhile."""

from __future__ import annotations

import time

import httpx
import pytest

from tests import web
from tests.engine.http import test_replicas, test_server
from tests.engine.http.running import E, Running, Start
from tests.engine.http.test_server import in_flight, ready
from tests.replicas import load, metric, replicas, until

start = test_server.start
several = test_replicas.start

LINGER_SECONDS = 4.0


def says(server: Running) -> tuple[int, str]:
    answer = web.get(f"{server.url}/health/ready")
    return answer.status_code, answer.json().get("code", "")


@pytest.mark.parametrize("kind", ["start", "several"])
def test_balancers_are_told_before_anything_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(kind)(linger_seconds=LINGER_SECONDS)
    ready(server) if kind == "start" else test_replicas.ready(server)
    with httpx.Client(base_url=server.url, timeout=120) as kept:
        first = kept.post(E, json={"input": "a"})
        assert (first.status_code, first.headers.get("connection")) == (200, None)
        began = time.monotonic()
        server.signal()
        until(lambda: says(server) == (503, "draining"))
        until(lambda: kept.post(E, json={"input": "a"}).headers.get("connection") == "close")  # the other one
        while time.monotonic() < began + LINGER_SECONDS / 4:
            again = kept.post(E, json={"input": "a"})  # on the kept connection, then on new ones
            assert (again.status_code, again.headers["connection"]) == (200, "close")
            assert says(server) == (503, "draining")
    assert server.wait() == 0
    assert time.monotonic() - began >= LINGER_SECONDS
    assert "Traceback" not in server.process.communicate()[1]


def test_then_it_drains(start: Start) -> None:
    server = ready(start(linger_seconds=1, drain=600))
    answer = in_flight(server)
    server.signal()
    until(lambda: server.post("a").status_code == 503)
    assert server.post("a").json()["code"] == "draining"
    server.signal()
    assert answer.result().status_code == 503
    assert server.wait() == 0


def test_what_was_in_flight_closes_its_connection(start: Start) -> None:
    server = ready(start(request=8))
    answer = in_flight(server)
    server.signal()
    assert (answer.result().status_code, answer.result().headers["connection"]) == (504, "close")
    assert server.wait() == 0


def test_a_second_signal_does_not_wait(start: Start) -> None:
    server = ready(start(linger_seconds=3600))
    answer = in_flight(server)
    server.signal()
    until(lambda: says(server) == (503, "draining"))
    server.signal()
    assert answer.result().status_code == 503
    assert server.wait() == 0


def test_nobody_notices_that_one_of_several_is_replaced(several: Start) -> None:
    """Each client asks within the time, and is led to the other."""
    server = test_replicas.ready(several(linger_seconds=LINGER_SECONDS))
    first, second = replicas(server)
    with (
        httpx.Client(base_url=server.url, timeout=120) as kept,
        load(lambda: server.post("a").status_code) as statuses,
    ):
        until(lambda: statuses[200] > 20)
        first.terminate()

        def asked() -> bool:
            assert kept.post(E, json={"input": "a"}).status_code == 200
            return len({each.pid for each in replicas(server)} - {first.pid, second.pid}) == 1

        until(asked)
        until(lambda: metric(server, "qvl_ready_replicas") == 2)
    assert set(statuses) == {200}, statuses
