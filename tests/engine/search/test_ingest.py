"""What `qvl search add` makes of lines and files that are bad, come twice or are no items."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pytest

from qvl.engine.cli import main
from qvl.engine.errors import MEDIA_NOT_BEGUN, Unprocessable
from qvl.engine.jobs import pipeline
from qvl.engine.jobs.corpus import survey
from qvl.engine.jobs.lines import Line
from qvl.engine.jobs.settings import JobError
from qvl.engine.protocol import EmbedResult, Usage
from qvl.engine.search import ingest
from qvl.engine.search.qdrant import Qdrant
from qvl.engine.search.settings import Place
from tests.engine.conftest import Run, Start, lines_of, write
from tests.engine.search.conftest import Local, told_of


@pytest.mark.parametrize(
    ("most", "batch"), [(9, 9), (9, 1), (2, 9)], ids=["one request", "side by side", "each alone"]
)
def test_a_line_that_repeats_a_bad_one_is_bad(
    qvl: Run, fake: Start, tmp_path: Path, most: int, batch: int
) -> None:
    bad, good = {"id": "a", "text": "BAD"}, {"id": "b", "text": "good"}
    source = write(tmp_path / "in.jsonl", [bad, bad, "BAD too", "BAD too"])
    server = fake(most=most, delay=0.1)
    command = ("search", "add", source, "--index", tmp_path / "index", "--url", server.url, "--batch", batch)
    assert "no line is good" in qvl(*command, code=1)
    write(source, [bad, good, "fine", good, bad])
    assert "2 put, 1 were there before; 2 in all" in qvl(*command)
    assert [each["line"] for each in told_of(tmp_path / "index")] == [1, 5]


class Late:
    """A server that does not begin the second of two."""

    async def embed(self, items: list[Any], *_: object) -> EmbedResult:
        late = {1: Unprocessable("not begun", code=MEDIA_NOT_BEGUN)} if len(items) > 1 else {}
        vectors = np.ones((len(items), 2), np.float32)
        return EmbedResult(model="m", vectors=vectors, usage=Usage(), errors=late)


class Nothing:
    def known(self, ids: list[str]) -> dict[str, str]:
        return {}


def test_what_was_not_begun_is_asked_alone_and_taken() -> None:
    task = ingest.Indexing(cast(Any, Late()), cast(Any, Nothing()), None, None)
    lines = [Line(i, b'"%d"' % i, 0) for i in range(2)]
    made = asyncio.run(pipeline.answer(task, lines))
    assert [cast(ingest.Made, each).vector is not None for each in made] == [True, True]


def test_a_folder_has_the_items_that_embed_finds_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.MP4", "c.md", "code.ts", "scan"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    lines, total = ingest.files(tmp_path)
    found = [orjson.loads(line.data) for line in lines]
    kinds = {each["id"]: next(kind for kind in ("text", "image", "video") if kind in each) for each in found}
    assert kinds == {"a.png": "image", "b.MP4": "video", "c.md": "text"}
    assert tuple(kinds) == survey(tmp_path, 9).blocks[0].names
    assert total == 3
    said = capsys.readouterr().err
    assert "left out, being neither text, image nor video: 2 files (.ts 1, without one 1)" in said
    for name in ("a.png", "b.MP4", "c.md"):
        (tmp_path / name).unlink()
    with pytest.raises(JobError, match=r"holds 2 files \(\.ts 1, without one 1\) that are neither"):
        ingest.files(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(JobError, match="holds nothing"):
        ingest.files(tmp_path / "empty")


def test_a_field_of_their_own_belongs_under_metadata(qvl: Run, fake: Start, tmp_path: Path) -> None:
    """One file serves both commands."""
    bad, good = {"text": "a", "year": 2024}, {"id": "g", "text": "b", "metadata": {"year": 2024}}
    source, out = write(tmp_path / "in.jsonl", [bad, good]), tmp_path / "out.jsonl"
    server = fake()
    qvl("search", "add", source, "--index", tmp_path / "index", "--url", server.url)
    [told] = told_of(tmp_path / "index")
    assert told["error"]["code"] == "unknown_field"
    assert (
        "unknown field `year`; put what an item has of its own under `metadata`" in told["error"]["message"]
    )
    qvl("embed", write(source, [good, "a text"]), "-o", out, "--url", server.url)
    assert server.log()[-1]["body"]["input"] == [{"text": "b"}, "a text"]
    assert [row.get("metadata") for row in lines_of(out)] == [{"year": 2024}, None]
    qvl("embed", source, "-o", tmp_path / "out.parquet", "--url", server.url)


def test_the_folders_to_serve_are_those_of_media_and_never_the_root(
    qvl: Run, fake: Start, tmp_path: Path
) -> None:
    nested = [
        {"image": "file:///data/x.png"},
        {"image": ["file:///data/deep/er/x.png", {"url": "file://localhost/home/u/my%20y/1.png"}]},
        {"content": [{"type": "video", "video": "file:///films/1.mp4"}, {"type": "text", "text": "a"}]},
        {"content": [{"type": "text", "text": "file:///etc/passwd"}], "metadata": {"image": "file:///etc/x"}},
        {"text": "file:///etc/passwd"},
        "file:///etc/passwd",
        {"image": "file:///top.png"},
        {"image": "file:///database/x.pdf#page=2"},
    ]
    source, url = write(tmp_path / "in.jsonl", nested), fake().url
    command = ("search", "add", source, "--index", tmp_path / "index", "--url", url)
    roots = ["/data", "/database", "/films", "'/home/u/my y'"]
    told = "serve it with " + " ".join(f"--file-roots {root}" for root in roots)
    assert f"{told}\n" in qvl(*command)
    write(source, [*nested, {"image": "file:///z/1.png"}, {"image": "file:///y/1.png"}])
    assert f"{told} and 2 more folders\n" in qvl(*command)
    write(source, ["file:///etc/passwd", {"image": "file:///top.png"}])
    assert "--file-roots" not in qvl(*command)


def test_beside_qdrant_nothing_of_the_current_folder_is_deleted(
    fake: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Place, "open", lambda place, writable: Qdrant(Local()))
    monkeypatch.chdir(tmp_path)
    of_another = write(tmp_path / "in.jsonl.errors.jsonl", [{"line": 7}])
    command = ["search", "add", "in.jsonl", "--index", "http://127.0.0.1:9/x", "--url", fake().url]
    for items in (["fine", "BAD"], ["fine"]):
        write(tmp_path / "in.jsonl", items)
        assert main(command) == 0
        assert lines_of(of_another) == [{"line": 7}]
        assert [each["line"] for each in told_of(tmp_path)] == [2]


def test_sources_of_one_name_have_errors_of_their_own(fake: Start, tmp_path: Path) -> None:
    url = fake().url
    for folder, items in (("a", ["fine", "BAD"]), ("b", ["fine"]), ("c", ["BAD", "fine"])):
        (tmp_path / folder).mkdir()
        source = write(tmp_path / folder / "in.jsonl", items)
        assert main(["search", "add", str(source), "--index", str(tmp_path / "index"), "--url", url]) == 0
    assert sorted(each["line"] for each in told_of(tmp_path / "index")) == [1, 2]
