"""Lines that name files: their bytes are asked with, from the folder of the input, whoever answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image

from qvl.engine.client.items import data_url
from qvl.engine.errors import BadRequest
from qvl.engine.jobs.corpus import survey
from qvl.engine.jobs.files import refuse_others, with_files
from qvl.engine.jobs.lines import Line
from qvl.engine.jobs.progress import counted, wrong
from tests.engine.conftest import Run, Start, lines_of, write


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "m" / f"{number}.png")
    return tmp_path / "m"


def read(value: Any, folder: Path) -> tuple[Any, Any]:
    """The line as it is asked, and as an index keeps it."""
    line = with_files(Line(0, orjson.dumps(value), 0), folder)
    return line.json(), orjson.loads(line.kept) if line.kept else None


def test_a_path_is_read_wherever_a_medium_may_be(pictures: Path) -> None:
    url, kept = data_url((pictures / "0.png").read_bytes(), "image/png"), (pictures / "0.png").as_uri()
    for shape in (
        lambda it: {"id": "a", "image": it},
        lambda it: {"image": ["https://host/x.png", it, {"url": it}], "text": "0.png"},
        lambda it: {"video": [[it, it], it]},
        lambda it: {"pdf": it},
        lambda it: {"content": [{"type": "image_url", "image_url": {"url": it}}]},
        lambda it: {"content": [{"type": "image", "image": it}, {"type": "text", "text": "x.png"}]},
        lambda it: {"query": {"image": it}, "documents": ["0.png", {"video": it}]},
        lambda it: {"image": it, "metadata": {"image": "0.png", "file": ["0.png"]}},
    ):  # fmt: skip
        for name in ("m/0.png", "./m/0.png", str(pictures / "0.png")):
            assert read(shape(name), pictures.parent) == (shape(url), shape(kept))


@pytest.mark.parametrize(
    "value", ["m/0.png", {"text": "m/0.png"}, {"image": "file:///m/0.png"}, {"image": "data:,x.png"}, 3]
)  # fmt: skip
def test_all_else_is_left_alone(pictures: Path, value: Any) -> None:
    assert read(value, pictures.parent) == (value, None)


def test_a_file_that_is_not_there_says_where_it_was_looked_for(pictures: Path) -> None:
    for name, said in (
        ("no.png", "No such file"),
        ("m/a\0.png", "null byte"),
        ("x" * 9999 + ".png", "too long"),
    ):
        with pytest.raises(BadRequest, match=said) as caught:
            read({"image": name}, pictures.parent)
        assert f"looked for at {pictures.parent}" in str(caught.value)


@pytest.mark.parametrize("page", ["", "#page=1"])
def test_a_line_names_nothing_outside_its_folder(tmp_path: Path, page: str) -> None:
    secret, folder = tmp_path / "passport.pdf", tmp_path / "given"
    secret.write_bytes(b"%PDF-1.7 secret")
    folder.mkdir()
    (folder / "link.pdf").symlink_to(secret)
    (folder / "there").symlink_to(tmp_path)
    for name in (str(secret), "../passport.pdf", "link.pdf", "there/passport.pdf", "../absent.pdf"):
        with pytest.raises(BadRequest, match="lies outside the input's folder; move it there, or") as caught:
            read({"image": f"{name}{page}"}, folder)
        assert caught.value.code == "file_forbidden"


def test_a_line_names_a_part_of_a_film(tmp_path: Path) -> None:
    data = b"\0\0\0\x20ftypisom...."
    (tmp_path / "a.MP4").write_bytes(data)
    sent, kept = read({"video": "a.MP4#t=1,2"}, tmp_path)
    assert sent["video"] == data_url(data, "video/mp4") + "#t=1,2"
    assert kept["video"] == f"{(tmp_path / 'a.MP4').resolve().as_uri()}#t=1,2"
    (tmp_path / "given").mkdir()
    with pytest.raises(BadRequest, match="lies outside"):
        read({"video": "../a.MP4#t=1,2"}, tmp_path / "given")


@pytest.mark.parametrize("name", ["x.png", "x.pdf", "x.pdf#page=1"])
def test_a_line_names_regular_files_alone(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name.partition("#")[0])
    with pytest.raises(BadRequest, match="not a regular file"):
        read({"image": name}, tmp_path)
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(BadRequest, match="looked for at"):
        read({"image": "loop.png"}, tmp_path)


def test_jobs_send_the_bytes(qvl: Run, fake: Start, pictures: Path, tmp_path: Path) -> None:
    server = fake()
    source = write(tmp_path / "in.jsonl", [{"image": "m/0.png"}, {"id": "b", "image": "m/9.png"}, "a text"])
    assert "2 rows, 1 bad" in qvl("embed", source, "-o", tmp_path / "out.jsonl", "--url", server.url)
    [bad] = lines_of(tmp_path / "out.jsonl.errors.jsonl")
    assert (bad["line"], bad["id"], bad["error"]["code"]) == (2, "b", "file_not_found")
    pair = {"query": {"image": "m/0.png"}, "documents": ["x", {"image": "m/1.png"}]}
    qvl("rerank", write(tmp_path / "r.jsonl", [pair]), "-o", tmp_path / "ranked.jsonl", "--url", server.url)
    embedded, ranked = (each["body"] for each in server.log())
    first, second = (data_url((pictures / f"{n}.png").read_bytes(), "image/png") for n in range(2))
    assert embedded["input"] == [{"image": first}, "a text"]
    assert (ranked["query"], ranked["documents"][1]) == ({"image": first}, {"image": second})


def test_a_corpus_has_them_too(pictures: Path, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ["a text", {"image": "m/0.png"}])
    [_, line] = survey(tmp_path / "in.jsonl", 9).blocks[0].lines()
    assert line.json() == {"image": data_url((pictures / "0.png").read_bytes(), "image/png")}


def test_an_index_refers_to_them(qvl: Run, fake: Start, pictures: Path, tmp_path: Path) -> None:
    from tests.engine.search.test_add import held

    server, items = fake(), [{"id": "a", "image": "m/0.png", "metadata": {"of": "x.png"}}]
    command = ("search", "add", write(tmp_path / "in.jsonl", items), "--index", tmp_path / "index")
    said = qvl(*command, "--url", server.url)
    assert f"serve it with --file-roots {pictures}" in said
    assert "0 put, 1 were there before" in qvl(*command, "--url", server.url)
    [sent] = [each["body"]["input"] for each in server.log() if isinstance(each["body"]["input"][0], dict)]
    assert sent == [{"image": data_url((pictures / "0.png").read_bytes(), "image/png")}]
    assert held(tmp_path / "index")["a"][:2] == ({"image": (pictures / "0.png").as_uri()}, {"of": "x.png"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PAR1\x15\x04", "is parquet: `qvl embed --ray` reads it"),
        (b"%PDF-1.7", "is application/pdf: give its folder"),
        (b"\x89PNG\r\n\x1a\n\0\0", "is image/png: give its folder"),
        (b'\xef\xbb\xbf [\n {"text": "a"}]', "is one JSON array: put one object a line"),
        (None, "is a folder: `qvl embed "),
    ],
)
def test_an_input_of_another_kind_is_told_at_once(
    qvl: Run, tmp_path: Path, content: bytes | None, said: str
) -> None:
    source = tmp_path / "in"
    source.mkdir() if content is None else source.write_bytes(content)
    for command in (
        ("embed", source, "-o", "x.jsonl"),
        ("search", "add", source, "--index", tmp_path / "index"),
    ):
        if content is not None or command[0] == "embed":
            assert said in qvl(*command, "--url", "http://127.0.0.1:9", code=2)
    assert "standard input (-) cannot be used" in qvl("embed", "-", "-o", "x.jsonl", code=2)


def test_token_ids_are_lines(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("[7, 8]\n[9]\n")
    refuse_others(tmp_path / "in.jsonl")


def test_errors_in_words() -> None:
    for message, param, said in (
        ("line 3.text is bad", "text", "line 3.text is bad"),
        ("metadata: too deep", "metadata", "line 3: metadata: too deep"),
        ("is missing", "query", "line 3 query: is missing"),
        ("not JSON", None, "line 3: not JSON"),
    ):
        assert wrong({"line": 3, "error": {"message": message, "param": param}}) == said
    assert [counted(n, "row") for n in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
