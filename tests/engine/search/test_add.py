"""`qvl search add` as a user runs it: again, after changes, with bad lines, killed, on a folder."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image

from qvl.engine.cli import main
from qvl.engine.errors import ConfigError, Unavailable
from qvl.engine.search import commands, ingest
from qvl.engine.search.canary import CANARY
from qvl.engine.search.embedded import Embedded
from tests.engine.conftest import QVL, Run, Start, write
from tests.engine.fake_server import vector
from tests.engine.search.conftest import told_of


def held(folder: Path) -> dict[str, tuple[Any, dict[str, Any], float]]:
    """Everything in the index: item, metadata, and how well its vector is that of the item."""
    with_all: dict[str, tuple[Any, dict[str, Any], float]] = {}
    index = Embedded(folder)
    rows = len(index)
    for hit in index.find(_unit({"text": "x"}), rows + 10, ()):
        item = orjson.loads(hit.item)
        [best] = index.find(_unit(item), 1, ())
        assert hit.id not in with_all, "an id came twice"
        with_all[hit.id] = (item, hit.metadata, best.similarity)
    index.close()
    assert len(with_all) == rows
    return with_all


def _unit(item: Any) -> Any:
    return np.asarray(vector(item, 8), np.float32)


def asked(server: Any) -> int:
    """Items, apart from what tells the model."""
    return sum(len(each["body"]["input"]) for each in server.log() if each["body"]["input"] != [CANARY])


def test_a_rerun_embeds_only_what_is_new_or_changed(qvl: Run, fake: Start, tmp_path: Path) -> None:
    server, index = fake(), tmp_path / "index"
    items = [{"id": f"d{i}", "text": f"text {i}", "metadata": {"number": i}} for i in range(30)]
    command = ("search", "add", write(tmp_path / "in.jsonl", items), "--index", index, "--url", server.url)
    assert "30 put, 0 were there before; 30 in all" in qvl(*command)
    assert "0 put, 30 were there before; 30 in all" in qvl(*command)
    assert asked(server) == 30
    items[3]["text"], items[4]["metadata"] = "changed", {"number": -1, "none": None, "tags": ["a"]}
    write(tmp_path / "in.jsonl", [*items, "no id", "no id"])
    assert "3 put, 29 were there before; 31 in all" in qvl(*command)
    there = held(index)
    assert there["d3"][0] == {"text": "changed"}
    assert there["d4"][1] == {"number": -1, "tags": ["a"]}
    assert [each[0] for id, each in there.items() if not id.startswith("d")] == ["no id"]
    assert len(there) == 31
    assert all(similarity > 0.999 for *_, similarity in there.values())


def test_bad_lines_go_to_a_file_of_their_own(qvl: Run, fake: Start, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    lines = [
        '"fine"',
        "not json",
        '{"id": "a", "text": "BAD"}',
        "[7, 8]",
        '{"id": "b", "text": "x"}',
        '{"id": "b", "text": "y"}',
        '{"text": "x", "metadata": {"no such name": 1}}',
        '{"text": "x", "metadata": {"deep": {"er": 1}}}',
        '{"text": "x", "metadata": 3}',
    ]
    source.write_text("\n".join(lines))
    command = ("search", "add", source, "--index", tmp_path / "index", "--url", fake().url)
    assert "7 bad lines left out" in qvl(*command)
    assert [(each["line"], each["error"]["param"]) for each in told_of(tmp_path / "index")] == [
        (2, None),
        (3, "text"),
        (4, None),
        (6, "id"),
        (7, "metadata"),
        (8, "metadata.deep"),
        (9, "metadata"),
    ]
    assert {"text": "x"} in [item for item, *_ in held(tmp_path / "index").values()]
    source.write_text("7")
    assert "no line is good" in qvl(*command, code=1)
    source.write_text('"fine"')
    qvl(*command)
    assert told_of(tmp_path / "index") == []


def test_what_is_told_of_bad_lines_has_a_limit(
    fake: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ingest, "MOST_ERRORS", 3)
    source = write(tmp_path / "in.jsonl", ["fine", 1, 2, 3, 4, 5])
    command = ["search", "add", str(source), "--index", str(tmp_path / "index"), "--url", fake().url]
    assert main(command) == 0
    assert "5 bad lines left out; what was wrong with the first 3: " in capsys.readouterr().err
    assert len(told_of(tmp_path / "index")) == 3


def test_more_items_than_a_folder_is_for_are_told(
    fake: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "MANY", 2)
    command = ["--index", str(tmp_path / "index"), "--url", fake().url]
    for items, told in ((["a", "b"], False), (["a", "b", "c"], True)):
        source = write(tmp_path / "in.jsonl", items)
        assert main(["search", "add", str(source), *command]) == 0
        assert ("compares all 3 items; for more than 2 take Qdrant" in capsys.readouterr().err) is told


def test_killed_at_any_time_everything_is_there_once(fake: Start, tmp_path: Path) -> None:
    items = [{"id": f"d{i}", "text": f"text {i}", "metadata": {"number": i}} for i in range(240)]
    source = write(tmp_path / "in.jsonl", items)
    for folder in (tmp_path / "once", tmp_path / "again"):
        server = fake(delay=0.15)
        if (killed := killed_until_done(source, folder, server.url)) >= 2:
            break  # or a machine that stood still found it done
    assert killed >= 2
    there = held(folder)
    assert {id: item for id, (item, _, _) in there.items()} == {
        each["id"]: {"text": each["text"]} for each in items
    }
    assert all(similarity > 0.999 for *_, similarity in there.values())
    assert asked(server) < 240 + 60 * (killed + 1), "a run began again"


def killed_until_done(source: Path, folder: Path, url: str) -> int:
    """How often it was killed, each time once it had put something."""
    options = ["--index", str(folder), "--url", url, "--batch", "5", "--in-flight", "2"]
    killed, seen = 0, 0
    while True:
        process = subprocess.Popen([*QVL, "search", "add", str(source), *options], stderr=subprocess.PIPE)
        while process.poll() is None and rows_of(folder) <= seen:
            time.sleep(0.02)
        seen = rows_of(folder)
        time.sleep(0.15)  # into what no commit covers yet
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == 0:
            break
        killed += 1
        assert rows_of(folder) >= seen, "what was put is lost"
    return killed


def rows_of(folder: Path) -> int:
    if not (folder / "items.sqlite").exists():
        return 0
    try:
        index = Embedded(folder)
    except (ConfigError, Unavailable):  # being made
        return 0
    try:
        return len(index)
    finally:
        index.close()


def test_a_folder_is_referred_to(qvl: Run, fake: Start, tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    (source / "red ones").mkdir(parents=True)
    Image.new("RGB", (8, 8), (255, 0, 0)).save(source / "red ones" / "1.png")
    (source / "note.txt").write_text("a note")
    (source / "other.bin").write_bytes(b"\0" * 99)
    server = fake()
    command = ("search", "add", source, "--index", tmp_path / "index", "--url", server.url)
    assert "2 put" in qvl(*command)
    assert "0 put, 2 were there before" in qvl(*command)
    said = qvl("search", "drop", "note.txt", "nobody", "--index", tmp_path / "index")
    assert "1 of 2 taken out; 1 in all" in said
    assert "1 put, 1 were there before" in qvl(*command)
    index = Embedded(tmp_path / "index")
    hits = {hit.id: (orjson.loads(hit.item), hit.metadata) for hit in index.find(_unit("x"), 9, ())}
    index.close()
    assert hits == {
        "note.txt": ({"text": "a note"}, {"path": "note.txt", "folder": "."}),
        "red ones/1.png": (
            {"image": (source / "red ones" / "1.png").as_uri()},
            {"path": "red ones/1.png", "folder": "red ones"},
        ),
    }
    [sent] = [item for each in server.log() for item in each["body"]["input"] if "image" in item]
    assert sent["image"].startswith("data:image/png;base64,")


def test_an_index_keeps_to_what_it_was_made_with(qvl: Run, fake: Start, tmp_path: Path) -> None:
    source, url = write(tmp_path / "in.jsonl", ["a", "b"]), fake().url
    command = ("search", "add", source, "--index", tmp_path / "index", "--url", url)
    qvl(*command, "--dimensions", 4, "--vectors", "float16")
    write(source, ["a", "b", "c"])
    assert "1 put, 2 were there" in qvl(*command)
    write(source, ["a", "b", "c", "d"])
    assert "made with dimensions 4, now 8" in qvl(*command, "--dimensions", 8, code=2)
    assert "4 put, 0 were there" in qvl(*command, "--dimensions", 8, "--overwrite")


def test_nothing_is_cleared_or_loaded_before_it_can_go_on(qvl: Run, fake: Start, tmp_path: Path) -> None:
    source, locked = write(tmp_path / "in.jsonl", ["a", "b"]), fake(key="k").url
    index = ("--index", tmp_path / "index")
    qvl("search", "add", source, *index, "--url", fake().url)
    assert "invalid_api_key" in qvl("search", "add", source, *index, "--url", locked, "--overwrite", code=1)
    assert rows_of(tmp_path / "index") == 2
    refused = ("search", "ask", "x", *index, "--url", locked, "--filter", '{"a b": 1}')
    assert "the field 'a b' needs another name" in qvl(*refused, code=1)


def test_mistakes_are_one_line(qvl: Run, fake: Start, tmp_path: Path) -> None:
    source, url = write(tmp_path / "in.jsonl", ["a"]), fake().url
    for arguments, message in [
        (("add", tmp_path / "no.jsonl", "--index", tmp_path / "index", "--url", url), "No such file"),
        (("add", source, "--url", url), "no index: give --index"),
        (("ask", "x", "--index", tmp_path / "none", "--url", url), "there is no index at"),
        (("drop", "x", "--index", tmp_path / "none"), "there is no index at"),
        (("ask", "--url", url), "give a text, --image or --video"),
        (("ask", "x", "--url", url, "--filter", "{"), "--filter is not JSON"),
        (("ask", "x", "--url", url, "--top-n", "0"), "--top-n must be at least 1"),
    ]:
        said = qvl("search", *arguments, code=2)
        assert message in said
        assert said.count("\n") == 1


@pytest.mark.parametrize("where", ["index", "http://127.0.0.1:6333/x"])
def test_without_the_extra_the_error_names_it(tmp_path: Path, where: str) -> None:
    code = (
        "import sys; sys.modules.update({'usearch': None, 'qdrant_client': None})\n"
        "from qvl.engine.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    source = write(tmp_path / "in.jsonl", ["a"])
    target = where if "://" in where else str(tmp_path / where)
    command = ["search", "add", str(source), "--index", target, "--url", "http://127.0.0.1:1"]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "qvl: an index needs the extra `search`: pip install 'qvl[search]'\n"
