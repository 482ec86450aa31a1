"""Inputs and outputs that are hostile or unlucky: each is told in words, and costs no other line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest

from qvl.engine.errors import BadRequest, QvlError
from qvl.engine.jobs import files
from qvl.engine.jobs.batch import Batch
from qvl.engine.jobs.corpus import survey
from qvl.engine.jobs.files import with_files
from qvl.engine.jobs.lines import Line
from qvl.engine.jobs.pipeline import HELD_BYTES, run
from qvl.engine.jobs.settings import JobConfig, JobError
from qvl.engine.jobs.tasks import Parsed, Row, parse
from qvl.engine.jobs.work import Mark, Work
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
        await asyncio.sleep(0.5)
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
    reads: list[Callable[[], Iterator[Line]]] = [
        lambda: ingest.files(folder)[0],
        lambda: survey(folder, 9).blocks[0].lines(),
    ]
    for read in reads:
        assert [line.json()["id"] for line in read()] == ["a.txt", "sub/again.txt"]
        said = capsys.readouterr().err
        assert "left out, being links to files outside of" in said
        assert "'link0.txt, link1.txt, link2.txt' and 2 more" in said


def test_the_folder_that_was_given_is_the_one_to_serve(qvl: Run, fake: Start, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    (folder / "deep").mkdir(parents=True)
    for path in (folder / "deep" / "a.png", tmp_path / "b.png"):
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "link.png").symlink_to(tmp_path / "b.png")
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
    piped = [*QVL, "embed", "/dev/stdin", "-o", str(tmp_path / "out.jsonl"), "--url", url]
    done = subprocess.run(piped, input=source.read_bytes(), capture_output=True, check=False)
    assert (done.returncode, words.encode() in done.stderr) == (2, True)
    with source.open("rb") as redirected:
        subprocess.run(piped, stdin=redirected, check=True)
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
    assert "is the input" in qvl("embed", tmp_path, "-o", tmp_path, "--ray", "--url", url, code=2)
    assert source.read_bytes() == before


def answered(qvl: Run, server: Any, folder: Path, lines: Sequence[bytes]) -> tuple[list[Any], list[Any]]:
    """Rows, and bad lines."""
    (folder / "in.jsonl").write_bytes(b"\n".join(lines))
    out, told = folder / "out.jsonl", folder / "out.jsonl.errors.jsonl"
    qvl("batch", folder / "in.jsonl", "-o", out, "--url", server.url, "--overwrite")
    return lines_of(out), lines_of(told) if told.exists() else []


def request(**fields: Any) -> bytes:
    return json.dumps({**REQUEST, **fields}).encode()


def test_requests_are_read_as_openai_reads_them(qvl: Run, fake: Start, tmp_path: Path) -> None:
    lines = [
        (b'{"url": "/v1/embeddings", "body": {"input": ["no name"]}}', None),
        (request(), None),
        (request(body={"input": ["again"]}), "duplicate_custom_id"),
        (request(custom_id=None), "invalid_request"),
        (request(custom_id="own", id="b"), "unknown_field"),
        (request(custom_id="slash", url="/v1/embeddings/"), "invalid_request"),
        (request(custom_id="query", url="/v1/embeddings?x=1"), "invalid_request"),
        (request(custom_id="host", url="//host/v1/embeddings"), "invalid_request"),
        (b"no JSON", "invalid_json"),
        (request(custom_id="x" * 5000), "invalid_request"),
    ]
    rows, bad = answered(qvl, fake(), tmp_path, [line for line, _ in lines])
    assert [row["custom_id"] for row in rows] == [0, "a"]
    assert [each["error"]["code"] for each in bad] == [code for _, code in lines if code]
    assert [each["custom_id"] for each in bad[:-1]] == ["a", None, "own", "slash", "query", "host", None]
    assert all(len(json.dumps(each)) < 10_000 for each in bad)  # of an id of 4,096, twice
    for each in bad:
        response = each["response"]
        assert (response["status_code"], response["request_id"]) == (400, f"batch_req_{each['index']}")
        assert response["body"]["error"] == each["error"]


def test_an_id_that_an_earlier_run_has_answered_comes_no_second_time(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [REQUEST, {**REQUEST, "custom_id": "b"}])
    task = Batch(None)  # type: ignore[arg-type]  # nobody is asked
    task.recall(source, Mark(index=1))
    with pytest.raises(BadRequest, match="the custom_id 'a' came before"):
        task.note(Parsed(2, "a", {}))
    task.note(Parsed(1, "b", {}))


def test_numbers_are_sent_as_they_are_written(qvl: Run, fake: Start, tmp_path: Path) -> None:
    digits = "123456789012345678901234567890"
    line = b'{"url": "/v1/embeddings", "body": {"input": ["a"], "user": %s}}' % digits.encode()
    server = fake()
    assert answered(qvl, server, tmp_path, [line])[1] == []
    assert [each["body"]["user"] for each in server.log()] == [int(digits)]


@pytest.mark.parametrize("key", [b"body", b"text", b"image", b"metadata"])
def test_a_line_of_too_many_levels_is_a_bad_one(tmp_path: Path, key: bytes) -> None:
    (tmp_path / "0.png").touch()
    for levels in (252, 300, 990, 1020, 9999):
        deep = b'{"video": "0.png", "%s": %s".png"%s}' % (key, b"[" * levels, b"]" * levels)
        try:
            parsed = parse(with_files(Line(0, deep, 0), tmp_path))
            assert len(orjson.dumps(parsed.value)) > levels  # it can be sent
        except BadRequest as error:
            assert error.code == "invalid_json"


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n\n"])
def test_a_file_of_a_byte_order_mark_is_empty(qvl: Run, fake: Start, tmp_path: Path, content: bytes) -> None:
    assert answered(qvl, fake(), tmp_path, [content]) == ([], [])
    with pytest.raises(JobError, match="has no items"):
        survey(tmp_path / "in.jsonl", 9)


def test_a_name_is_the_same_however_it_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    plain = with_files(Line(0, b'{"image": "0.png"}', 0), tmp_path)
    for name in (rb"0.\u0070ng", rb".\/0.png", rb"0\u002epng", rb"0.pn\u0067"):
        line = with_files(Line(0, b'{"image": "%s"}' % name, 0), tmp_path)
        assert (line.json(), line.wrong) == (plain.json(), None)
    assert plain.data.startswith(b'{"image":"data:image/png')


def test_long_names_are_told_shortened(tmp_path: Path) -> None:
    for name in ("x" * 9999 + ".png", "../" + "y" * 9999 + ".png", "z" * 9999 + ".pdf#page=0"):
        line = with_files(Line(0, json.dumps({"image": name}).encode(), 0), tmp_path)
        assert line.wrong is not None
        assert len(line.wrong.message) < 800
