"""A corpus in blocks: every item in exactly one, the same blocks each time, readable from any item on."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qvl.engine.jobs import corpus as corpora
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpora, "READ_BYTES", 1000)
    (tmp_path / "ü.png").write_bytes(b"\x89PNG\r\n\x1a\n" * 1000)
    for lines in (ingest.files(tmp_path), survey(tmp_path, 5).blocks[0].lines()):
        assert len(next(iter(lines)).data) < 2000
    (tmp_path / "a\udcff.txt").write_text("a text")
    for read in (ingest.count, lambda folder: survey(folder, 5)):
        with pytest.raises(JobError, match=r"a\\udcff.txt': the name is not UTF-8; rename"):
            read(tmp_path)


@pytest.mark.parametrize("name", ["nothing", "empty", "empty.jsonl"])
def test_nothing_to_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(JobError, match=r"no such file|has no items"):
        survey(tmp_path / name, 5)
