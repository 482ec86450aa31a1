"""`qvl embed` and `qvl rerank` started twice, stopped and killed: nothing is lost, nothing comes twice."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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


def test_two_runs_do_not_write_the_same_file(qvl: Run, fake: Start, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    folder = tmp_path / "out.jsonl.work"
    folder.mkdir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another run is writing" in qvl("embed", source, "-o", out, "--url", fake().url, code=2)
    assert not out.exists()
