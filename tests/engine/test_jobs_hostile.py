"""Inputs and outputs that are hostile or unlucky: each is told in words, and costs no other line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from qvl.engine.errors import QvlError
from qvl.engine.jobs import files
from qvl.engine.jobs.corpus import survey
from qvl.engine.jobs.files import with_files
from qvl.engine.jobs.lines import Line
from qvl.engine.jobs.pipeline import HELD_BYTES, run
from qvl.engine.jobs.settings import JobConfig
from qvl.engine.jobs.tasks import Parsed, Row
from qvl.engine.jobs.work import Work
from qvl.engine.search import ingest
from tests.engine.conftest import QVL, Run, Start, lines_of, write

REQUEST = {"custom_id": "a", "url": "/v1/embeddings", "body": {"input": ["a"]}}


@pytest.mark.parametrize("name", ["big.png", "big.mp4"])
def test_a_file_larger_than_the_engine_takes_is_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, 10 << 30)
    line = with_files(Line(0, json.dumps({"image": name}).encode(), 0), tmp_path)
    assert line.wrong is not None
    assert line.wrong.message == f"{name} has 10,737,418,240 bytes; at most 50,331,648"
    os.truncate(tmp_path / name, 60 << 20)
    assert with_files(line, tmp_path, 1 << 30).wrong is line.wrong
    assert not with_files(Line(0, line.data, 0), tmp_path, 60 << 20).wrong  # --media-bytes of its own engine


def test_the_files_of_a_line_have_a_limit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LINE_BYTES", 1000)
    for number in range(9):
        (tmp_path / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    for many, wrong in ((3, False), (9, True)):
        value = {"image": [f"{number}.png" for number in range(many)]}
        assert bool(with_files(Line(0, json.dumps(value).encode(), 0), tmp_path, 500).wrong) is wrong


class Slow:
    """Counts the bytes of what is under way."""

    most: ClassVar[int | None] = 1
    held = highest = 0

    async def answer(self, batch: Sequence[Parsed]) -> list[Row | QvlError]:
        size = sum(len(each.value["text"]) for each in batch)
        self.held += size
        self.highest = max(self.highest, self.held)
        await asyncio.sleep(0.05)
        self.held -= size
        return [(b"{}\n",) for _ in batch]


def test_what_is_under_way_has_a_limit_of_bytes(tmp_path: Path) -> None:
    size = HELD_BYTES // 4
    lines = (Line(at, b'{"text": "%s"}' % (b"x" * size), at + 1) for at in range(12))
    task = Slow()
    with Work(tmp_path / "out.jsonl", ("rows.jsonl",)) as work:
        work.begin({})
        asyncio.run(run(task, lines, work, JobConfig(in_flight=12), lambda _: None))
        assert work.mark.rows == 12
    assert size < task.highest <= HELD_BYTES + size


def test_what_takes_too_long_is_one_bad_line(qvl: Run, fake: Start, tmp_path: Path) -> None:
    server = fake()
    source = write(tmp_path / "in.jsonl", ["SLOW", "good", "SLOW too", "fine"])
    assert "2 rows, 2 bad" in qvl("embed", source, "-o", tmp_path / "out.jsonl", "--url", server.url)
    assert [row["index"] for row in lines_of(tmp_path / "out.jsonl")] == [1, 3]
    told = lines_of(tmp_path / "out.jsonl.errors.jsonl")
    assert [each["error"]["code"] for each in told] == ["deadline_exceeded"] * 2
    slow = {**REQUEST, "custom_id": "slow", "body": {"input": ["SLOW"]}}
    source = write(tmp_path / "batch.jsonl", [slow, REQUEST])
    assert "1 row, 1 bad" in qvl("batch", source, "-o", tmp_path / "answers.jsonl", "--url", server.url)


def test_links_lead_no_folder_to_what_lies_outside_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret, folder = tmp_path / "passwd", tmp_path / "given"
    secret.write_text("root:x")
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("a text")
    (folder / "sub" / "again.txt").symlink_to("../a.txt")
    for number in range(5):
        (folder / f"link{number}.txt").symlink_to(secret)
    for read in (lambda: ingest.files(folder)[0], lambda: survey(folder, 9).blocks[0].lines()):
        assert [line.json()["id"] for line in read()] == ["a.txt", "sub/again.txt"]
        said = capsys.readouterr().err
        assert "left out, being links to files outside of" in said
        assert "'link0.txt, link1.txt, link2.txt' and 2 more" in said


def test_the_folder_that_was_given_is_the_one_to_serve(qvl: Run, fake: Start, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    said = qvl("search", "add", folder, "--index", tmp_path / "index", "--url", fake().url)
    assert f"serve it with --file-roots {folder}\n" in said


def test_what_can_be_read_once_is_no_input(qvl: Run, fake: Start, tmp_path: Path) -> None:
    url, source = fake().url, write(tmp_path / "in.jsonl", ["a"])
    os.mkfifo(tmp_path / "pipe.jsonl")
    os.mkfifo(tmp_path / "pipe.parquet")
    words = "is no regular file: a job reads its input twice; give a file"
    for command in (
        ("embed", tmp_path / "pipe.jsonl", "-o", tmp_path / "x.jsonl"),
        ("embed", tmp_path / "pipe.parquet", "-o", tmp_path / "x", "--ray"),
        ("search", "add", tmp_path / "pipe.jsonl", "--index", tmp_path / "index"),
    ):
        assert words in qvl(*command, "--url", url, code=2)
    command = [*QVL, "embed", "/dev/stdin", "-o", str(tmp_path / "out.jsonl"), "--url", url]
    done = subprocess.run(command, input=source.read_bytes(), capture_output=True, check=False)
    assert (done.returncode, words.encode() in done.stderr) == (2, True)
    with source.open("rb") as redirected:
        subprocess.run(command, stdin=redirected, check=True)
    assert len(lines_of(tmp_path / "out.jsonl")) == 1


def test_an_output_replaces_neither_its_input_nor_what_is_no_file(
    qvl: Run, fake: Start, tmp_path: Path
) -> None:
    url, source = fake().url, write(tmp_path / "in.jsonl", [REQUEST])
    before = source.read_bytes()
    (tmp_path / "linked.jsonl").hardlink_to(source)
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    os.mkfifo(tmp_path / "pipe")
    for command, out, said in (
        ("embed", "in.jsonl", "is the input"),
        ("rerank", "in.jsonl", "is the input"),
        ("batch", "linked.jsonl", "is the input"),
        ("embed", "folder.jsonl", "is a folder: give a file to -o"),
        ("batch", "pipe.jsonl", "is no regular file"),
    ):
        told = qvl(command, source, "-o", tmp_path / out, "--overwrite", "--url", url, code=2)
        assert f"{tmp_path / out} {said}" in told
    told = qvl("embed", source, "-o", tmp_path / "pipe", "--ray", "--overwrite", "--url", url, code=2)
    assert "pipe is no folder" in told
    told = qvl("embed", tmp_path, "-o", tmp_path, "--ray", "--url", url, code=2)
    assert "is the input: give another folder" in told
    assert source.read_bytes() == before
