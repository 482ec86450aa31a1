"""The log of a server whose reader stalls: nobody waits for it, lines stay in order, and the end is told."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from qvl.engine.logs import MOST_WAITING, Written
from tests import web
from tests.engine.http import test_replicas, test_server
from tests.engine.http.running import ROOT, E, Running, Start, running
from tests.engine.http.test_server import ready
from tests.replicas import metric, until

start = test_server.start
several = test_replicas.start

PIPE_BYTES = 4096
"""The least that Linux lets a pipe have; a line of a request has 150."""
REQUESTS = 200


@pytest.mark.parametrize("kind", ["start", "several"])
def test_a_reader_that_stalls_stops_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    ids = [f"n{number}." for number in range(REQUESTS)]

    def told() -> bool:
        """All of it: a reader that stands still for longer than the end waits misses the last lines."""
        server = ready(narrow(request.getfixturevalue(kind)(log_level="debug")))
        with httpx.Client(base_url=server.url, timeout=120) as client:
            for each in ids:
                assert client.post(E, json={"input": "a"}, headers={"x-request-id": each}).status_code == 200
        assert web.get(f"{server.url}/health/live").status_code == 200
        server.signal()
        time.sleep(0.3)  # it is drained and about to end; what follows is within the time it has to flush
        err = server.process.communicate(timeout=120)[1]
        assert server.process.returncode == 0
        return re.findall(r"id=(n\d+\.) ", err) == ids

    assert any(told() for _ in range(3))


def narrow(server: Running) -> Running:
    """Its stderr; not possible once more than that is in it."""
    assert server.process.stderr
    fcntl.fcntl(server.process.stderr, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return server


def test_a_log_that_nobody_reads_delays_no_end(start: Start) -> None:
    server = ready(narrow(start(log_level="debug")))
    for _ in range(REQUESTS // 4):
        assert server.post("a").status_code == 200
    server.signal()
    began = time.monotonic()
    assert server.wait() == 0
    assert time.monotonic() - began < 60


def test_the_last_lines_are_told(start: Start) -> None:
    server = ready(start(log_format="json"))
    assert server.post("!die").status_code == 503
    assert server.wait() == 3
    said = [json.loads(line) for line in server.process.communicate()[1].splitlines()]
    why = said.index(next(each for each in said if each["message"] == "the engine of x has died; exiting"))
    # What the server is may be told as late as that.
    assert [each["code"] for each in said[why + 1 :] if "code" in each] == ["engine_stopped"]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Its reader and its writer."""
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield reader, writer
    for each in (reader, writer):
        os.close(each)


def log_of(writer: int) -> logging.Logger:
    logger = logging.Logger("qvl.test")
    logger.addHandler(Written(writer))
    return logger


def lines(reader: int) -> Iterator[str]:
    with os.fdopen(os.dup(reader), encoding="utf-8", errors="surrogateescape") as file:
        yield from (line.rstrip("\n") for line in file)


def test_what_has_no_room_is_counted_where_it_is_missing(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log, sent = log_of(writer), 3 * MOST_WAITING
    began = time.monotonic()
    for number in range(sent):
        log.info("%d", number)
    assert time.monotonic() - began < 60
    found = lines(reader)
    kept = []
    while (line := next(found)).isdecimal():
        kept.append(int(line))
    assert kept == list(range(len(kept)))
    # The pipe has some more, and the thread one.
    assert MOST_WAITING <= len(kept) < sent
    assert line == f"{sent - len(kept)} lines are missing here: nobody read them in time"
    log.info("again")
    assert next(found) == "again"


def test_a_flush_waits_for_a_reader_and_not_for_ever(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log = log_of(writer)
    log.info("first")
    [handler] = log.handlers
    handler.flush()
    os.set_blocking(reader, False)
    assert os.read(reader, 99) == b"first\n"
    log.info("x" * 3 * PIPE_BYTES)
    began = time.monotonic()
    handler.flush()
    assert time.monotonic() - began < 60
    read = bytearray()

    def whole() -> bool:
        read.extend(os.read(reader, PIPE_BYTES))
        handler.flush()
        return read == b"x" * 3 * PIPE_BYTES + b"\n"

    until(whole)


def test_a_pipe_that_others_share_may_be_full(pipe: tuple[int, int]) -> None:
    """Node.js and ssh leave theirs so."""
    reader, writer = pipe
    os.set_blocking(writer, False)
    log = log_of(writer)
    for number in range(PIPE_BYTES):
        log.info("%d \ud800", number)
    found = lines(reader)
    assert [next(found) for _ in range(PIPE_BYTES)] == [f"{number} \\ud800" for number in range(PIPE_BYTES)]


def test_it_outlives_that_vllm_configures_logging_for_itself() -> None:
    """Which closes every handler that there is, and forgets it: `logging.shutdown` flushes it no more."""
    code = (
        "import logging.config, os\n"
        "from qvl.engine.config import EngineConfig, ServerConfig\n"
        "from qvl.engine.logs import log_to_stderr\n"
        "log_to_stderr(ServerConfig(engine=EngineConfig(embedder='x')))\n"
        "logging.config.dictConfig({'version': 1, 'disable_existing_loggers': False})\n"
        f"for number in range({MOST_WAITING}): logging.getLogger('qvl.x').info('line %d.', number)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = re.findall(r"qvl\.x line (\d+)\.\n", done.stderr)
    assert list(map(int, said)) == list(range(MOST_WAITING))


@pytest.mark.parametrize(
    ("count", "module", "arguments"),
    [(1, "serve_fake", (0, 0, 8, 120, "", "{}")), (2, "fake_replica", (2, "start", "", "{}"))],
    ids=["one", "several"],
)
def test_a_start_asks_for_the_gpus_once(
    tmp_path: Path, count: int, module: str, arguments: tuple[object, ...]
) -> None:
    """For all that wants to know of them, where vLLM is the build for GPUs, and for all replicas."""
    smi, asked = tmp_path / "nvidia-smi", tmp_path / "asked"
    smi.write_text(f"#!/bin/sh\necho once >> {asked}\necho 'NVIDIA H200, 143771, 9.0, 580.95.05'\n")
    smi.chmod(0o755)
    build = tmp_path / "vllm-0.33.0.dist-info" / "METADATA"
    build.parent.mkdir()
    build.write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.33.0\n")
    found = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with running(module, *arguments, environment=found | {"TMPDIR": str(tmp_path)}) as server:
        until(lambda: web.probe(f"{server.url}/health/ready") == 200)
        until(lambda: asked.exists() and metric(server, "qvl_ready_replicas") == count)
        server.signal()
        _, said = server.process.communicate(timeout=300)
    assert asked.read_text() == "once\n"
    [line] = re.findall(".*settings that are not the default.*", said)
    assert "vllm 0.33.0, " in line and "; 1 × NVIDIA H200 (driver 580.95.05); " in line
