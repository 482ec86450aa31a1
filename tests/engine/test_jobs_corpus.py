"""A corpus in blocks: every item in exactly one, the same blocks each time, readable from any item on."""

from __future__ import annotations

import base64
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qvl.engine.errors import BadRequest
from qvl.engine.jobs.corpus import Corpus, survey
from qvl.engine.jobs.settings import JobError
from qvl.engine.jobs.tasks import parse
from qvl.engine.search import ingest

PIXELS = b"\x89PNG picture"


def items(corpus: Corpus, index: int = 0) -> list[Any]:
    lines = [line for block in corpus.blocks for line in block.lines(index)]
    assert [line.index for line in lines] == list(range(index, corpus.items))
    return [json.loads(line.data) for line in lines]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(b"\n" * (i % 3) + b'{"text": "%d"}\n' % i for i in range(23)) + b'"last"')
    return path


@pytest.mark.parametrize("size", [1, 5, 24, 1000])
def test_lines(lines: Path, size: int) -> None:
    corpus = survey(lines, size)
    assert corpus.items == 24
    assert [block.count for block in corpus.blocks] == [size] * (24 // size) + [24 % size] * bool(24 % size)
    whole = [*({"text": str(i)} for i in range(23)), "last"]
    for index in (0, 7, 23):
        assert items(corpus, index) == whole[index:]
    assert survey(lines, size) == corpus
    with lines.open("ab") as file:
        file.write(b"\n1")
    assert survey(lines, size).sha256 != corpus.sha256


def test_row_groups_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    columns = {
        "id": [f"r{i}" for i in range(10)],
        "text": [f"t{i}" if i % 2 else None for i in range(10)],
        "image": [{"bytes": PIXELS, "path": "x"}, *[{"bytes": None, "path": "http://a/b.png"}] * 9],
        "video": [[b"a", b"b"], *[None] * 9],
        "label": list(range(10)),
    }
    pq.write_table(pa.table(columns), path, row_group_size=3)
    corpus = survey(path, 4)
    assert [(block.groups, block.count) for block in corpus.blocks] == [((0, 1), 6), ((2, 3), 4)]
    found = items(corpus)
    encoded = base64.b64encode(PIXELS).decode()
    assert found[0] == {"id": "r0", "image": encoded, "video": ["YQ==", "Yg=="]}
    assert found[7] == {"id": "r7", "text": "t7", "image": "http://a/b.png"}
    assert items(corpus, 8) == found[8:]
    pq.write_table(pa.table({"label": [1]}), path)
    with pytest.raises(JobError, match="none of the columns"):
        survey(path, 4)


def test_bytes_are_media_or_utf8_and_a_row_that_is_neither_is_a_bad_one(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    texts = pa.array([b"a red bicycle", b"\xff\xfe", "ü".encode()])
    pq.write_table(pa.table({"id": [b"r0", b"r1", b"r2"], "text": texts, "image": [b"a"] * 3}), path)
    good, bad, last = (line for block in survey(path, 5).blocks for line in block.lines())
    assert good.json() == {"id": "r0", "text": "a red bicycle", "image": "YQ=="}
    assert last.json()["text"] == "ü"
    with pytest.raises(BadRequest, match="text is not UTF-8"):
        parse(bad)
    pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), 3, texts.buffers())}), path)
    good, bad, _ = survey(path, 5).blocks[0].lines()
    assert good.json() == {"text": "a red bicycle"}
    with pytest.raises(BadRequest, match="text is not UTF-8"):
        parse(bad)


def test_a_struct_of_something_else_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"image": pa.array([{"data": b"a"}])}), path)
    (bad,) = survey(path, 5).blocks[0].lines()
    with pytest.raises(BadRequest, match="what JSON does not"):
        parse(bad)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("id", pa.array([Decimal(1)])),
        ("id", pa.array([1.0])),
        ("id", pa.array([[1]])),
        ("text", pa.array([1])),
        ("text", pa.array([{"bytes": b"a"}])),
        ("image", pa.array([[1]])),
        ("instruction", pa.array([["a"]])),
        ("fps", pa.array([Decimal(1)])),
        ("max_frames", pa.array([8.0])),
    ],
)
def test_a_column_of_a_type_that_no_item_has_is_refused_at_the_start(
    tmp_path: Path, name: str, values: Any
) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"video": ["x"], name: values}), path)
    with pytest.raises(JobError, match=rf"the column {name} is of .* and must be of .*: cast it"):
        survey(path, 5)


def test_columns_of_every_type_that_an_item_has(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    columns = {
        "id": pa.array([7], pa.uint16()),
        "text": pa.array(["a"]).dictionary_encode(),
        "image": pa.array([["a"]], pa.large_list(pa.large_string())),
        "video": pa.array([None]),
        "fps": pa.array([2], pa.int8()),
        "max_frames": pa.array([8], pa.int64()),
    }
    pq.write_table(pa.table(columns), path)
    assert items(survey(path, 5)) == [{"id": 7, "text": "a", "image": ["a"], "fps": 2, "max_frames": 8}]
    path.write_text("text")
    with pytest.raises(JobError, match="is not parquet"):
        survey(path, 5)


def test_a_folder_of_everything(tmp_path: Path, lines: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.JPG").write_bytes(PIXELS)
    (tmp_path / "a.txt").write_text("a text")
    (tmp_path / "c.mp4").write_bytes(PIXELS)
    (tmp_path / "notes.xyz").write_text("?")
    corpus = survey(tmp_path, 20)
    assert (corpus.items, corpus.skipped) == (27, 1)
    assert [block.count for block in corpus.blocks] == [20, 4, 3]
    encoded = base64.b64encode(PIXELS).decode()
    assert items(corpus)[24:] == [
        {"id": "a.txt", "text": "a text"},
        {"id": "c.mp4", "video": encoded},
        {"id": "deep/b.JPG", "image": encoded},
    ]
    assert parse(next(corpus.blocks[2].lines(25))).id == "c.mp4"


def test_names_that_are_not_utf8_and_files_without_end(
    tmp_path: Path,
) -> None:
    (tmp_path / "ü.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    os.truncate(tmp_path / "ü.png", 10 << 30)
    for lines in (ingest.files(tmp_path)[0], survey(tmp_path, 5).blocks[0].lines()):
        wrong = next(iter(lines)).wrong
        assert wrong is not None
        assert wrong.message == "ü.png has 10,737,418,240 bytes; at most 50,331,648"
    (tmp_path / "a\udcff.txt").write_text("a text")
    for read in (ingest.files, lambda folder: survey(folder, 5)):
        with pytest.raises(JobError, match=r"a\\udcff.txt': the name is not UTF-8; rename"):
            read(tmp_path)


@pytest.mark.parametrize("name", ["nothing", "empty", "empty.jsonl"])
def test_nothing_to_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(JobError, match=r"no such file|has no items"):
        survey(tmp_path / name, 5)
