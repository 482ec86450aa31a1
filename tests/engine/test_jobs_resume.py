"""`qvl embed` and `qvl rerank` started twice, stopped and killed: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import fcntl
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvl.engine.jobs import pipeline
from qvl.engine.jobs.commands import Order, carry_out
from qvl.engine.jobs.lines import Line
from qvl.engine.jobs.settings import JobConfig
from qvl.engine.jobs.tasks import Embedding, Parsed
from qvl.engine.jobs.work import Mark
from tests.engine.conftest import QVL, Run, Start, lines_of, vectors_of, write


def test_a_finished_job_is_not_repeated_and_not_mixed_up(
    qvl: Run, fake: Start, source: Path, tmp_path: Path
) -> None:
    server, out = fake(), tmp_path / "out.jsonl"
    command = ("embed", source, "-o", out, "--url", server.url)
    qvl(*command)
    before, asked = out.read_bytes(), len(server.log())
    assert "is finished already: 50 rows" in qvl(*command)
    assert len(server.log()) == asked
    assert "was begun with dimensions null, now 4; --overwrite" in qvl(*command, "--dimensions", 4, code=2)
    assert out.read_bytes() == before
    qvl(*command, "--dimensions", 4, "--overwrite")
    assert vectors_of(lines_of(out)).shape == (50, 4)
    write(source, ["other"])
    assert "an input of other content" in qvl(*command, "--dimensions", 4, code=2)
    out.unlink()
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl.job.json"}


def test_a_finished_job_of_bad_lines_stays_one_whatever_became_of_their_file(
    qvl: Run, fake: Start, tmp_path: Path
) -> None:
    source, out = write(tmp_path / "in.jsonl", ["BAD"]), tmp_path / "out.jsonl"
    command = ("embed", source, "-o", out, "--url", fake().url)
    assert "no line is good; line 1" in qvl(*command, code=1)
    told = tmp_path / "out.jsonl.errors.jsonl"
    for strange in ("", "text", '[{"line": 1}]', '{"line": 1, "error": "x"}', None):
        told.unlink() if strange is None else told.write_text(strange)
        assert qvl(*command, code=1).endswith("no line is good\n")


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        ({"dtype": "float32"}, {"dtype": "bfloat16"}, 'begun with dtype "float32", now "bfloat16"; --over'),
        ({"dimensions": 8}, {"dimensions": 16}, "begun with width 8, now 16; --overwrite"),
        # The first server told no more than its name.
        ({}, {"dtype": "float32", "dimensions": 8}, 'begun with dtype null, now "float32"; --overwrite'),
        ({}, {}, "is finished already"),
    ],
)
@pytest.mark.parametrize("command", ["embed", "rerank"])
def test_a_name_that_another_model_has_now(
    qvl: Run, fake: Start, tmp_path: Path, command: str, first: Any, then: Any, told: str
) -> None:
    out = tmp_path / "out.jsonl"
    source = write(
        tmp_path / "in.jsonl", [{"query": "a", "documents": ["b"]} if command == "rerank" else "a"]
    )
    qvl(command, source, "-o", out, "--url", fake(card=first).url)
    before = out.read_bytes()
    code = 0 if first == then else 2
    assert told in qvl(command, source, "-o", out, "--url", fake(card=then).url, code=code)
    assert out.read_bytes() == before


def test_a_file_of_unknown_origin_is_not_replaced(
    qvl: Run, fake: Start, source: Path, tmp_path: Path
) -> None:
    out = write(tmp_path / "out.jsonl", ["precious"])
    command = ("embed", source, "-o", out, "--url", fake().url)
    assert "--overwrite replaces it" in qvl(*command, code=2)
    assert "precious" in out.read_text()
    qvl(*command, "--overwrite")
    assert len(lines_of(out)) == 50


@pytest.mark.parametrize("suffix", ["jsonl", "npz"])
def test_killed_at_any_time_every_row_comes_once(fake: Start, tmp_path: Path, suffix: str) -> None:
    texts = [f"text {i}" if i % 10 else "BAD" for i in range(400)]
    source = write(tmp_path / "in.jsonl", texts)
    for folder in (tmp_path / "once", tmp_path / "again"):
        folder.mkdir()
        server, out = fake(delay=0.1), folder / f"out.{suffix}"
        if (killed := killed_until_done(source, out, server.url)) >= 2:
            break  # or a machine that stood still found the job done
    assert killed >= 2
    wanted = [i for i in range(400) if i % 10]
    if suffix == "npz":
        assert np.load(out)["ids"].tolist() == [str(i) for i in wanted]
    else:
        assert [row["index"] for row in lines_of(out)] == wanted
    errors = lines_of(folder / f"{out.name}.errors.jsonl")
    assert [each["index"] for each in errors] == [i for i in range(400) if i % 10 == 0]
    asked = sum(len(entry["body"]["input"]) for entry in server.log())
    assert asked < 400 + 60 * (killed + 1), "a resumed job began again"


def killed_until_done(source: Path, out: Path, url: str) -> int:
    """How often the job was killed, each time once it had committed something."""
    options = ["--url", url, "--batch", "5", "--in-flight", "2"]
    command = [*QVL, "embed", str(source), "-o", str(out), *options]
    work = out.with_name(f"{out.name}.work")
    journal = work / "journal.jsonl"

    def commits() -> int:
        with suppress(FileNotFoundError):  # a finished job removes it
            return journal.read_bytes().count(b"\n")
        return 0

    seen, killed = 0, 0
    while True:
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        while process.poll() is None and commits() <= seen:
            time.sleep(0.02)
        seen = max(seen, commits())
        time.sleep(0.15)  # into the rows that no commit covers yet
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if out.exists():  # killed or not, it only had to tidy up
            break
        killed += 1
        with (work / "rows.jsonl").open("ab") as rows:
            rows.write(b'{"torn')  # what a crash of the machine may leave
    subprocess.run(command, check=True, capture_output=True)
    return killed


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


def test_two_runs_do_not_write_the_same_file(qvl: Run, fake: Start, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    folder = tmp_path / "out.jsonl.work"
    folder.mkdir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another run is writing" in qvl("embed", source, "-o", out, "--url", fake().url, code=2)
    assert not out.exists()


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
