"""PDFs in folders and in lines: each page is an item."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pypdfium2
import pytest

from qvl.engine.errors import BadRequest
from qvl.engine.jobs import pdf
from qvl.engine.jobs.corpus import survey
from qvl.engine.jobs.files import with_files
from qvl.engine.jobs.lines import Line
from qvl.engine.search.ingest import files
from tests.engine.conftest import Run, Start, lines_of
from tests.engine.media.test_pdf import ONE, TWO


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "papers"
    (made / "sub").mkdir(parents=True)
    (made / "one.pdf").write_bytes(ONE)
    (made / "sub" / "Two.PDF").write_bytes(TWO)
    (made / "torn.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    return made


def drawn(data: bytes, place: int) -> Any:
    with pypdfium2.PdfDocument(data) as document:
        return document[place].render(scale=1).to_numpy().copy()


def inside(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


def test_each_page_of_a_folder_is_an_item(folder: Path) -> None:
    lines, count = files(folder)
    found = list(lines)
    assert count == len(found) == 4
    items = [(orjson.loads(line.data), orjson.loads(line.kept or b"")) for line in found]
    assert [(item["id"], item["metadata"]) for item, _ in items] == [
        ("one.pdf#page=1", {"path": "one.pdf", "folder": ".", "page": 1}),
        ("sub/Two.PDF#page=1", {"path": "sub/Two.PDF", "folder": "sub", "page": 1}),
        ("sub/Two.PDF#page=2", {"path": "sub/Two.PDF", "folder": "sub", "page": 2}),
        ("torn.pdf", {"path": "torn.pdf", "folder": "."}),
    ]
    assert items[2][1]["image"] == f"{(folder / 'sub' / 'Two.PDF').resolve().as_uri()}#page=2"
    alone = inside(items[2][0]["image"])
    assert np.array_equal(drawn(alone, 0), drawn(TWO, 1))
    assert not np.array_equal(drawn(alone, 0), drawn(TWO, 0))


def test_a_page_is_the_same_bytes_each_time(folder: Path) -> None:
    """Or every run would embed it again."""
    first = pdf.page_of(folder / "one.pdf", 1)
    time.sleep(1.1)  # PDFium writes the second, and a random name
    assert pdf.page_of(folder / "one.pdf", 1) == first


def test_an_empty_page_too(tmp_path: Path) -> None:
    with pypdfium2.PdfDocument.new() as blank:
        blank.new_page(100, 100)
        blank.save(tmp_path / "blank.pdf")
    first = pdf.page_of(tmp_path / "blank.pdf", 1)
    assert len(first) < 768  # less than what is looked through for dates and names
    assert first.count(b"%PDF") == first.count(b"startxref") == 1
    time.sleep(1.1)
    assert pdf.page_of(tmp_path / "blank.pdf", 1) == first


def test_a_count_is_not_believed(tmp_path: Path) -> None:
    many = ONE.replace(b"/Count 1", b"/Count 1000000")
    (tmp_path / "many.pdf").write_bytes(many)
    assert pdf.names_of(tmp_path / "many.pdf", "many.pdf") in (["many.pdf"], ["many.pdf#page=1"])


def test_a_page_that_is_not_there_is_told(folder: Path) -> None:
    with pytest.raises(BadRequest, match="has 2 pages, no page 3"):
        pdf.page_of(folder / "sub" / "Two.PDF", 3)


def test_a_line_names_a_page(folder: Path) -> None:
    line = with_files(Line(0, b'{"image": "sub/Two.PDF#page=2"}', 0), folder)
    assert np.array_equal(drawn(inside(orjson.loads(line.data)["image"]), 0), drawn(TWO, 1))
    assert orjson.loads(line.kept or b"")["image"].endswith("/sub/Two.PDF#page=2")


def test_a_corpus_has_its_pages(folder: Path) -> None:
    corpus = survey(folder, 3)
    assert [block.count for block in corpus.blocks] == [3, 1]
    found = [orjson.loads(line.data) for block in corpus.blocks for line in block.lines()]
    assert [item["id"] for item in found] == [
        "one.pdf#page=1",
        "sub/Two.PDF#page=1",
        "sub/Two.PDF#page=2",
        "torn.pdf",
    ]
    assert np.array_equal(drawn(base64.b64decode(found[1]["image"]), 0), drawn(TWO, 0))


def test_a_second_run_embeds_nothing_again(qvl: Run, fake: Start, folder: Path, tmp_path: Path) -> None:
    server = fake()
    command = ("search", "add", folder, "--index", tmp_path / "index", "--url", server.url)
    assert "4 put" in qvl(*command)
    assert "0 put" in qvl(*command)


@pytest.mark.engine
def test_pages_come_from_the_engine(qvl: Run, server: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"image": "papers/one.pdf"}\n{"image": "papers/torn.pdf"}\n')
    qvl("embed", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--url", server.url)
    assert [row["index"] for row in lines_of(tmp_path / "out.jsonl")] == [0]
    [wrong] = lines_of(tmp_path / "out.jsonl.errors.jsonl")
    assert (wrong["line"], wrong["error"]["code"]) == (2, "undecodable_media")
