"""PDFs in folders and in lines: each page is an item."""

from __future__ import annotations

import base64
import os
import re
import struct
import time
import zlib
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
    *found, torn = lines
    assert count == len(found) + 1 == 4
    assert torn.wrong is not None
    assert torn.wrong.message.startswith("torn.pdf: the PDF is truncated, corrupt or locked")
    items = [(orjson.loads(line.data), orjson.loads(line.kept or b"")) for line in found]
    assert [(item["id"], item["metadata"]) for item, _ in items] == [
        ("one.pdf#page=1", {"path": "one.pdf", "folder": ".", "page": 1}),
        ("sub/Two.PDF#page=1", {"path": "sub/Two.PDF", "folder": "sub", "page": 1}),
        ("sub/Two.PDF#page=2", {"path": "sub/Two.PDF", "folder": "sub", "page": 2}),
    ]
    assert items[2][1]["image"] == f"{(folder / 'sub' / 'Two.PDF').resolve().as_uri()}#page=2"
    alone = inside(items[2][0]["image"])
    assert np.array_equal(drawn(alone, 0), drawn(TWO, 1))
    assert not np.array_equal(drawn(alone, 0), drawn(TWO, 0))


def test_a_page_is_the_same_bytes_each_time(folder: Path) -> None:
    """Or every run would embed it again."""
    first = pdf.cut_page(folder / "one.pdf", 1)
    time.sleep(1.1)  # PDFium writes the second, and a random name
    assert pdf.cut_page(folder / "one.pdf", 1) == first


def test_an_empty_page_too(tmp_path: Path) -> None:
    with pypdfium2.PdfDocument.new() as blank:
        blank.new_page(100, 100)
        blank.save(tmp_path / "blank.pdf")
    first = pdf.cut_page(tmp_path / "blank.pdf", 1)
    assert len(first) < 768  # less than what is looked through for dates and names
    assert first.count(b"%PDF") == first.count(b"startxref") == 1
    time.sleep(1.1)
    assert pdf.cut_page(tmp_path / "blank.pdf", 1) == first


def test_a_count_is_not_believed(tmp_path: Path) -> None:
    many = ONE.replace(b"/Count 1", b"/Count 1000000")
    (tmp_path / "many.pdf").write_bytes(many)
    assert pdf.names_of(tmp_path / "many.pdf", "many.pdf") in (["many.pdf"], ["many.pdf#page=1"])


def chained(links: int) -> bytes:
    """One page whose resources lead from object to object: PDFium follows them by calling itself."""
    ends = {9 + links: b"<<>>"}
    return built(
        {10 + at: b"<</N %d 0 R>>" % (11 + at) for at in range(links)} | ends, b"[3 0 R]", b"<</X 10 0 R>>"
    )


def doubled(levels: int) -> bytes:
    """2^levels pages, by what names the level below it twice."""
    inner = {10 + at: b"<</Type/Pages/Kids[%d 0 R %d 0 R]>>" % (11 + at, 11 + at) for at in range(levels - 1)}
    return built({**inner, 9 + levels: b"<</Type/Pages/Kids[3 0 R 3 0 R]>>"}, b"[10 0 R]")


def built(objects: dict[int, bytes], kids: bytes, resources: bytes = b"<<>>") -> bytes:
    objects = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Kids%s>>" % kids,
        3: b"<</Type/Page/MediaBox[0 0 99 99]/Resources%s>>" % resources,
    } | objects
    made = b"%PDF-1.7\n" + b"".join(b"%d 0 obj\n%s\nendobj\n" % each for each in objects.items())
    return made + b"trailer\n<</Root 1 0 R/Size %d>>\n%%%%EOF\n" % (max(objects) + 1)


def test_a_file_that_crashes_the_library_is_one_bad_line(folder: Path) -> None:
    (folder / "evil.pdf").write_bytes(chained(60_000))
    ended = [r"^evil\.pdf: reading the PDF ended its process: it crashed"] * pdf.MOST_ENDED
    for said in (*ended, "^evil.pdf has ended 3 processes that read it; its rest is left out"):
        with pytest.raises(BadRequest, match=said):
            pdf.cut_page(folder / "evil.pdf", 1)
        assert pdf.cut_page(folder / "one.pdf", 1)  # by another process


def test_a_file_that_takes_for_ever_is_one_bad_line(folder: Path) -> None:
    (folder / "endless.pdf").write_bytes(ONE)
    os.truncate(folder / "endless.pdf", 1 << 40)
    with pytest.raises(BadRequest, match=r"^endless\.pdf: to read the PDF took over 10 s"):
        pdf.check(folder / "endless.pdf")


def test_a_file_that_fills_the_memory_is_one_bad_line(folder: Path) -> None:
    """Three gigabytes of blanks, in an object stream that holds the pages."""
    squeeze = zlib.compressobj(9)
    first, again = (squeeze.compress(b" " * (1 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    blanks = first + again * 3000 + squeeze.flush()
    made = b"%PDF-1.7\n1 0 obj\n<</Type/Catalog/Pages 6 0 R>>\nendobj\n"
    packed = b"5 0 obj\n<</Type/ObjStm/N 2/First 10/Filter/FlateDecode/Length %d>>stream\n" % len(blanks)
    places = [(0, 0, 255), (1, made.index(b"1 0 obj"), 0), *[(0, 0, 0)] * 3, (1, len(made), 0), (2, 5, 0)]
    made += packed + blanks + b"\nendstream\nendobj\n"
    table = b"".join(struct.pack(">BIH", *place) for place in places)
    where = len(made)
    made += b"8 0 obj\n<</Type/XRef/Size 7/W[1 4 2]/Root 1 0 R/Length %d>>stream\n" % len(table)
    made += table + b"\nendstream\nendobj\nstartxref\n%d\n%%%%EOF" % where
    (folder / "bomb.pdf").write_bytes(made)
    said = late = "to read the PDF took over"
    while late in said:  # a busy machine may; not for ever, as one file may end so many processes
        with pytest.raises(BadRequest) as refused:
            pdf.check(folder / "bomb.pdf")
        said = refused.value.message
    assert re.match(r"bomb\.pdf: reading the PDF ended its process: it .* memory", said)


def test_a_small_file_of_too_many_pages_is_one_bad_line(tmp_path: Path) -> None:
    (tmp_path / "x.pdf").write_bytes(doubled(15))
    [line] = files(tmp_path)[0]
    assert line.wrong is not None
    assert line.wrong.message == "x.pdf has 32,768 pages; at most 10,000"
    assert survey(tmp_path, 9).items == 1


@pytest.mark.parametrize(
    ("page", "read"), [("#PAGE=2", 2), ("#page=0", 0), ("#page=1.5", 0), ("#page=9999999", 0)]
)
def test_pages_are_named_as_the_server_reads_them(folder: Path, page: str, read: int) -> None:
    name = b'{"image": "sub/Two.PDF%s"}' % page.encode()
    line = with_files(Line(0, name, 0), folder)
    if read:
        assert orjson.loads(line.kept or b"")["image"].endswith(f"/sub/Two.PDF#page={read}")
    else:
        assert line.wrong is not None
        assert "#page=N, from 1 to 999999" in line.wrong.message


def test_a_page_that_is_not_there_is_told(folder: Path) -> None:
    with pytest.raises(BadRequest, match="has 2 pages, no page 3"):
        pdf.cut_page(folder / "sub" / "Two.PDF", 3)


def test_what_was_filled_into_a_form_is_on_the_page(tmp_path: Path) -> None:
    shown = b"1 0 0 rg 0 0 50 50 re f"
    field = b"<</Type/Annot/Subtype/Widget/FT/Tx/T(a)/V(x)/Rect[9 9 59 59]/F 4/P 3 0 R/AP<</N 5 0 R>>>>"
    look = b"<</Type/XObject/Subtype/Form/BBox[0 0 50 50]/Length %d>>stream\n%s\nendstream" % (
        len(shown),
        shown,
    )
    objects = {1: b"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[4 0 R]>>>>", 4: field, 5: look}
    made = built(objects, b"[3 0 R]", b"<<>>/Annots[4 0 R]")
    (tmp_path / "form.pdf").write_bytes(made)
    assert drawn(made, 0).min() == 255  # by who does not ask for forms
    assert drawn(pdf.cut_page(tmp_path / "form.pdf", 1), 0).min() == 0


def test_a_line_names_a_page(folder: Path) -> None:
    line = with_files(Line(0, b'{"image": "sub/Two.PDF#page=2"}', 0), folder)
    assert np.array_equal(drawn(inside(orjson.loads(line.data)["image"]), 0), drawn(TWO, 1))
    assert orjson.loads(line.kept or b"")["image"].endswith("/sub/Two.PDF#page=2")


def test_a_corpus_has_its_pages(folder: Path) -> None:
    corpus = survey(folder, 3)
    assert [block.count for block in corpus.blocks] == [3, 1]
    *whole, torn = (line for block in corpus.blocks for line in block.lines())
    assert torn.wrong is not None
    assert torn.wrong.code == "undecodable_media"
    found = [orjson.loads(line.data) for line in whole]
    assert [item["id"] for item in found] == ["one.pdf#page=1", "sub/Two.PDF#page=1", "sub/Two.PDF#page=2"]
    assert np.array_equal(drawn(base64.b64decode(found[1]["image"]), 0), drawn(TWO, 0))


def test_a_second_run_embeds_nothing_again(qvl: Run, fake: Start, folder: Path, tmp_path: Path) -> None:
    server = fake()
    command = ("search", "add", folder, "--index", tmp_path / "index", "--url", server.url)
    assert "3 put" in qvl(*command)
    assert "0 put" in qvl(*command)


@pytest.mark.engine
def test_pages_come_from_the_engine(qvl: Run, server: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"image": "papers/one.pdf"}\n{"image": "papers/torn.pdf"}\n')
    qvl("embed", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--url", server.url)
    assert [row["index"] for row in lines_of(tmp_path / "out.jsonl")] == [0]
    [wrong] = lines_of(tmp_path / "out.jsonl.errors.jsonl")
    assert (wrong["line"], wrong["error"]["code"]) == (2, "undecodable_media")
