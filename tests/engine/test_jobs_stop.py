"""A job that is told to stop: what is answered is kept, and nobody goes on writing."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from qvl.engine.jobs import pipeline
from qvl.engine.jobs.commands import Order, carry_out
from qvl.engine.jobs.lines import Line
from qvl.engine.jobs.settings import JobConfig
from qvl.engine.jobs.tasks import Embedding, Parsed
from qvl.engine.jobs.work import Mark
from tests.engine.conftest import QVL, Run, Start, lines_of


def test_ctrl_c_keeps_what_was_answered(qvl: Run, fake: Start, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    server = fake(delay=1)
    command = ["embed", str(source), "-o", str(out), "--batch", "2", "--in-flight", "1", "--url"]
    # A shell lets what runs in its background ignore Ctrl-C, this test with it.
    hearing = ["env", "--default-signal=INT", *QVL]
    process = subprocess.Popen([*hearing, *command, server.url], stderr=subprocess.PIPE, text=True)
    while len(server.log()) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "qvl: stopped; the same command goes on from here"
    assert "answered before; going on" in qvl(*command, fake().url)
    assert len(lines_of(out)) == 50


@pytest.mark.engine
def test_told_to_stop_while_the_model_loads_it_does_not_wait_for_it(source: Path, tmp_path: Path) -> None:
    command = [*QVL, "embed", str(source), "-o", str(tmp_path / "out.jsonl"), "--embedder", "bundled"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert "loading the model" in next(line for line in process.stderr if "loading" in line)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.returncode == 143
    assert "stopped while the model was loading" in said


class SlowDisk:
    """A sink that says when two commits met."""

    def __init__(self) -> None:
        self.mark, self.begun = Mark(), threading.Event()
        self.busy = self.met = False
        self.commits = 0

    def append(self, row: str) -> None: ...

    def append_error(self, record: dict[str, Any]) -> None: ...

    def advance(self, index: int, offset: int, lines: int) -> None: ...

    def commit(self) -> None:
        self.met = self.met or self.busy
        self.busy = True
        self.begun.set()
        time.sleep(0.1)
        self.busy = False
        self.commits += 1


class Echo:
    most = None

    async def answer(self, batch: Sequence[Parsed]) -> list[Any]:
        await asyncio.sleep(0.01)
        return [line.value for line in batch]


def test_a_stop_does_not_commit_beside_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "COMMIT_SECONDS", 0)
    disk = SlowDisk()

    async def stopped() -> None:
        lines = (Line(i, b"1", i) for i in range(1000))
        job = asyncio.create_task(pipeline.run(Echo(), lines, disk, JobConfig(batch=1), lambda mark: None))
        await asyncio.to_thread(disk.begun.wait)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job

    asyncio.run(stopped())
    assert not disk.met
    assert disk.commits >= 2


def test_a_stop_leaves_nobody_writing(fake: Start, source: Path, tmp_path: Path) -> None:
    """The lock is given back only when the output is not written any more."""
    begun, ended = threading.Event(), threading.Event()

    def slow(folder: Path, made: Path, mark: Mark) -> None:
        begun.set()
        time.sleep(0.3)
        ended.set()

    async def stopped() -> None:
        job = JobConfig(url=fake().url)
        asked = {"instruction": None, "dimensions": None}
        order = Order(source, tmp_path / "out.jsonl", job, None, "embedder", asked, Embedding, slow)
        under_way = asyncio.create_task(carry_out(order))
        await asyncio.to_thread(begun.wait, 300)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        assert ended.is_set()

    asyncio.run(stopped())
    assert not (tmp_path / "out.jsonl").exists()
