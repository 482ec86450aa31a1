"""Work that nobody waits for any more leaves the model; a model that hangs leaves nobody waiting."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests import web
from tests.conftest import STOP_SECONDS, Pair, Server, start_server
from tests.replicas import gone, metric, until
from tests.system.ends import REFUSED, ask, children, engines

pytestmark = pytest.mark.engine

DEADLINE, STALL = 4.0, 12
SOON = 3.0
"""CPU seconds of the engine's for a short text once the long ones have gone, a model step that cannot be
stopped included. By a clock, each pause of a busy machine would count."""
LONG = {"input": [f"{number} " + "many words to read " * 250 for number in range(1000)]}
"""Two million tokens in texts of two thousand: the longer ones are, the longer a step of them takes."""
SHORT = {"input": "a red bicycle"}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hurried") / "log"


@pytest.fixture(scope="module")
def hurried(pair: Pair, log: Path) -> Iterator[Server]:
    # Steps of one text: of four they take a slow machine longer than half the deadline.
    options = ("--request-seconds", str(DEADLINE), "--stall-seconds", str(STALL))
    with start_server(pair, log, *options, "--max-batched-tokens", "2048", reranker=False) as server:
        yield server


def test_an_interactive_text_overtakes_a_batch(hurried: Server) -> None:
    """A whole second of long texts waits when it comes; it is answered before most of them are taken."""
    # On a machine that stands still meanwhile, the deadline may end the batch first.
    assert any(overtakes(hurried) for _ in range(3))


def overtakes(server: Server) -> bool:
    body = {"input": LONG["input"][:240], "priority": "batch"}
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(web.post, f"{server.url}/v1/embeddings", json=body)
        until(lambda: waiting(server) > 50 or batch.done())
        status = ask_shortly(server)
        overtook = status == 200 and not batch.done()
        assert batch.result().status_code in (200, 504)
    return overtook


def ask_shortly(server: Server) -> int:
    return web.post(f"{server.url}/v1/embeddings", json=SHORT).status_code


def cpu_of_a_short_text(server: Server) -> float:
    """Of the engine's, until it has answered one."""
    (engine,) = engines(server)
    before = sum(engine.cpu_times()[:2])
    until(lambda: ask_shortly(server) == 200)
    return float(sum(engine.cpu_times()[:2]) - before)


def waiting(server: Server) -> float:
    return metric(server, 'qvl_queued_items{role="embedder"}')


def test_a_deadline_frees_the_model(hurried: Server) -> None:
    answer = web.post(f"{hurried.url}/v1/embeddings", json=LONG)
    assert answer.status_code == 504, "the work must be longer than the deadline for this to show anything"
    assert cpu_of_a_short_text(hurried) < SOON
    until(lambda: waiting(hurried) == 0)


def test_a_hang_up_frees_the_model(hurried: Server) -> None:
    until(lambda: hangs_up(hurried))
    assert cpu_of_a_short_text(hurried) < SOON
    until(lambda: waiting(hurried) == 0)


def hangs_up(server: Server) -> bool:
    """Unless the deadline comes first, on a machine that stands still."""
    try:
        web.post(f"{server.url}/v1/embeddings", json=LONG, timeout=httpx.Timeout(60, read=1))
    except httpx.ReadTimeout:
        return True
    return False


def test_a_hung_engine_is_a_504_then_the_end_of_the_server(hurried: Server, log: Path) -> None:
    """Stopped by a signal, it holds up its callers as a device does that never comes back."""
    family = children(hurried)
    (engine,) = engines(hurried)
    engine.suspend()
    with ThreadPoolExecutor(4) as clients:
        assert list(clients.map(lambda number: ask(hurried, number), range(4))) == [504] * 4
        late = [clients.submit(ask_to_the_end, hurried, number) for number in range(4)]
        assert hurried.process.wait(STALL + STOP_SECONDS) == 3
    assert set().union(*(each.result() for each in late)) <= {503, 504, REFUSED}
    assert f"hangs: no sign of life for {STALL} s" in log.read_text()
    assert gone(family)


def ask_to_the_end(server: Server, number: int) -> set[int]:
    """Some are under way when the engine is given up."""
    found = set()
    while server.process.poll() is None:
        found.add(ask(server, number))
    return found
