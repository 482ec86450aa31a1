"""The real server told to stop, or killed: nothing hangs and nothing stays behind.

A replica and its supervisor are killed in `test_replicas`; an engine is killed in `test_memory`, and hangs in
`test_cancel`.
"""

from __future__ import annotations

import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import STOP_SECONDS, Pair, start_server
from tests.replicas import gone, metric, until
from tests.system.ends import REFUSED, REQUESTS, ask, children, engines

pytestmark = pytest.mark.engine

QUEUED = 'qvl_queued_items{role="embedder"}'


def test_sigterm_answers_what_it_took_and_leaves_nothing(pair: Pair, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ("--drain-seconds", "45")
    with (
        start_server(pair, log, *options, reranker=False) as server,
        ThreadPoolExecutor(REQUESTS) as clients,
    ):
        family = children(server)
        assert engines(server)
        answers = [clients.submit(ask, server, number) for number in range(REQUESTS)]
        # On a machine that stands still the queue may have been and gone.
        until(lambda: metric(server, QUEUED) > 0 or any(each.done() for each in answers))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(STOP_SECONDS) == 0, log.read_text()
        statuses = [answer.result() for answer in answers]
        assert statuses.count(200) > 0
        assert set(statuses) <= {200, 503, REFUSED}, statuses
        assert gone(family)
        assert not re.search(r"unexpectedly|died|leaked", log.read_text())


def test_a_killed_server_leaves_no_engine(pair: Pair, tmp_path: Path) -> None:
    with start_server(pair, tmp_path / "log") as server:
        family = children(server)
        assert len(engines(server)) == 2
        server.process.kill()
        server.process.wait()
        assert gone(family)
