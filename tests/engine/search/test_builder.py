"""The process that builds a graph beside the searches, one for all; it ends with its server."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qvl.engine.errors import Unavailable
from tests.engine.search.conftest import Open, built, entry, filled, found, graphed, pid, turn, unit_rows

ROOT = Path(__file__).parents[3]


def test_searches_go_on_while_a_graph_is_built(folder: Open, tmp_path: Path) -> None:
    writer, rows = filled(folder, 300)
    reader = folder(exact_rows=100)
    with turn(tmp_path / "index"):
        assert found(reader, rows[299], 1) == [299]
        assert pid(reader)
        writer.remove(["d0", "d299"])
        writer.put([entry(7)], unit_rows(1, seed=9))
        assert 299 not in found(reader, rows[299], 300)
        assert found(reader, unit_rows(1, seed=9)[0], 1) == [7]
        assert graphed(reader) == []
    built(reader)
    assert graphed(reader) == [*range(2, 8), *range(9, 300), 301]
    assert sorted(found(reader, rows[299], 300)) == list(range(1, 299))


def test_one_builds_for_all_and_saves_it(folder: Open, tmp_path: Path) -> None:
    _, rows = filled(folder, 300)
    readers = [folder(exact_rows=100) for _ in range(3)]
    with turn(tmp_path / "index"):
        for reader in readers:
            assert found(reader, rows[0], 1) == [0]
            assert pid(reader)
    marks = set()
    for reader in [*readers, folder(exact_rows=100)]:
        assert found(built(reader), rows[0], 1) == [0]
        assert len(graphed(reader)) == 300
        marks.add(reader._view._mark)
    assert len(marks) == 1


def test_a_build_that_fails_is_told_once_and_rests(
    folder: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer, rows = filled(folder, 300)
    (tmp_path / "index" / "graph-new").mkdir()  # where it would be saved
    reader = folder(exact_rows=100)
    for _ in range(3):
        assert found(built(reader), rows[7], 1) == [7]
    assert len(caplog.records) == 1
    assert "its graph could not be saved" in caplog.text
    assert graphed(reader) == []
    monkeypatch.setattr(reader._builder, "_rested", 0.0)
    reader.load()
    built(reader)
    assert len(caplog.records) == 1
    with pytest.raises(Unavailable, match="make room"):
        writer.settle()


def test_a_build_that_is_killed_is_told_and_tried_again(
    folder: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filled(folder, 300)
    reader = folder(exact_rows=100)
    with turn(tmp_path / "index"):
        reader.load()
        os.kill(pid(reader), signal.SIGKILL)
        built(reader)
    assert len(caplog.records) == 1
    assert "exit -9" in caplog.text
    monkeypatch.setattr(reader._builder, "_rested", 0.0)
    reader.load()
    assert len(graphed(built(reader))) == 300
    assert len(caplog.records) == 1


def test_who_closes_ends_the_build(folder: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(folder, 300)
    reader = folder(exact_rows=100)
    with turn(tmp_path / "index"):
        reader.load()
        builder = pid(reader)
        reader.close()
        thread = reader._builder._thread
        assert thread is not None
        thread.join(10)
        with pytest.raises(ProcessLookupError):
            os.kill(builder, 0)
    assert not caplog.records


@pytest.mark.parametrize("ending", ["index.close()", "pass", "os.kill(os.getpid(), 9)"])
def test_a_process_that_ends_leaves_no_build(folder: Open, tmp_path: Path, ending: str) -> None:
    filled(folder, 300)
    script = f"""
import os
from pathlib import Path
from qvl.engine.search.embedded import Embedded
from tests.engine.search.conftest import pid
index = Embedded(Path({str(tmp_path / "index")!r}), exact_rows=100)
index.load()
print(pid(index), flush=True)
input()
{ending}
"""
    command, pipe = [sys.executable, "-c", script], subprocess.PIPE
    with (
        turn(tmp_path / "index"),
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as server,
    ):
        assert server.stdout
        builder = os.pidfd_open(int(server.stdout.readline()))
        assert not select.select([builder], [], [], 0)[0]
        assert server.stdin
        server.stdin.write("\n")
        server.stdin.flush()
        assert server.wait(10) == (-9 if "kill" in ending else 0)
        assert select.select([builder], [], [], 10)[0]
        os.close(builder)


def test_a_graph_that_is_shorter_than_the_one_here_is_taken(folder: Open, tmp_path: Path) -> None:
    """As it would be due again and again."""
    writer, rows = filled(folder, 300)
    writer.settle()
    reader = folder(exact_rows=100)
    reader.load()
    writer.put([entry(i) for i in range(300, 450)], unit_rows(150, seed=3))
    with turn(tmp_path / "index"):
        reader.load()
        builder = pid(reader)
        writer.remove([f"d{i}" for i in range(299, 450)])
        writer.put([entry(500)], rows[299:])
        writer.remove(["d500"])
    built(reader)
    assert pid(reader) == builder
    assert not reader._view.outgrown
    assert sorted(found(reader, rows[0], 300)) == list(range(299))
    writer.put([entry(i) for i in range(600, 603)], unit_rows(3, seed=4))
    assert sorted(found(reader, rows[0], 302)) == [*range(299), 600, 601, 602]
