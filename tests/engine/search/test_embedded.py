"""The index in a folder: readers follow the writer, and beyond some size a graph is walked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from qvl.engine.errors import ConfigError, Unavailable
from qvl.engine.protocol import Condition
from qvl.engine.search import embedded, tables
from qvl.engine.search.embedded import Embedded
from qvl.engine.search.near import Graph, Scan
from tests.engine.search.conftest import entry, layout, unit_rows

Open = Callable[..., Embedded]


def found(index: Embedded, query: np.ndarray, count: int = 10, *where: Condition) -> list[int]:
    return [int(hit.id[1:]) for hit in index.find(query, count, where)]


def test_a_reader_sees_what_was_put_since(folder: Open) -> None:
    rows = unit_rows(6)
    writer = folder(writable=True)
    reader = folder()
    assert found(reader, rows[0]) == []
    writer.prepare(layout())
    writer.put([entry(i) for i in range(3)], rows[:3])
    assert found(reader, rows[0], 1) == [0]
    writer.put([entry(0), entry(9)], rows[3:5])  # 0 has moved
    assert found(reader, rows[3], 1) == [0]
    assert reader.find(rows[0], 1, ())[0].similarity < 0.9
    writer.clear()
    assert found(reader, rows[0]) == []
    writer.prepare(layout(model="other", dtype="int8"))
    writer.put([entry(5)], rows[5:])
    assert found(reader, rows[5]) == [5]
    assert reader.layout == layout(model="other", dtype="int8")


def test_what_is_loaded_is_not_read_again(folder: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit_rows(300)
    writer, reader = folder(writable=True), folder(exact_rows=100)
    reader.load()  # it is empty
    writer.prepare(layout())
    writer.put([entry(i) for i in range(300)], rows)
    reader.load()
    monkeypatch.delattr(tables, "vectors_after")
    assert found(reader, rows[7], 1) == [7]


def test_who_closes_does_not_wait_for_all_of_it(folder: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = folder(writable=True), folder(exact_rows=100)
    writer.prepare(layout())
    writer.put([entry(i) for i in range(300)], unit_rows(300))
    monkeypatch.setattr(embedded, "CHUNK", 10)
    begun, add = threading.Event(), Graph.add

    def slow(graph: Graph, *given: np.ndarray) -> None:
        begun.set()
        time.sleep(0.1)
        add(graph, *given)

    monkeypatch.setattr(Graph, "add", slow)
    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(reader.load)
        assert begun.wait(10)
        reader.close()
        with pytest.raises(Unavailable, match="is being closed"):
            loading.result(10)
    assert 0 < len(reader._near or ()) < 300


def test_one_writes_at_a_time(folder: Open) -> None:
    first = folder(writable=True)
    with pytest.raises(ConfigError, match="another run is writing"):
        folder(writable=True)
    first.close()
    folder(writable=True)


def test_what_a_failed_put_did_is_undone(folder: Open) -> None:
    index = folder(writable=True)
    index.prepare(layout())
    with pytest.raises(ValueError, match="zip"):
        index.put([entry(0), entry(1), entry(2)], unit_rows(2))
    assert len(index) == 0
    assert found(index, unit_rows(1)[0]) == []


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_a_graph_finds_what_a_scan_finds(folder: Open, tmp_path: Path, dtype: str) -> None:
    many, width = 3000, 16
    rows = unit_rows(many, width=width)
    writer = folder(writable=True, exact_rows=1000)
    writer.prepare(layout(dimensions=width, prefix=width, dtype=dtype))
    entries = [entry(i, even=i % 2 == 0, rare=i % 100 == 0, most=i >= 300) for i in range(many)]
    for start in range(0, many, 500):
        writer.put(entries[start : start + 500], rows[start : start + 500])
        assert found(writer, rows[start], 1) == [start]  # a scan at first, then a graph that grows
    moved = unit_rows(1, seed=9, width=width)
    writer.put([entry(7, even=False, rare=False, most=False)], moved)
    writer.settle()
    assert [path.suffix for path in tmp_path.glob("index/graph-*")] == [".usearch"]
    graph, scan = folder(exact_rows=1000), folder()
    assert found(graph, moved[0], 1) == [7]
    for key, value in [(None, None), ("even", True), ("rare", True), ("most", True)]:
        where = [Condition(key=key, values=(value,))] if key else []
        same = [
            len(set(found(graph, query, 20, *where)) & set(found(scan, query, 20, *where))) / 20
            for query in unit_rows(20, seed=3, width=width)
        ]
        assert np.mean(same) >= 0.98, key


def test_a_reader_that_fell_behind_does_not_scan_what_needs_a_graph(
    folder: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan grows by copying itself."""
    rows = unit_rows(300)
    writer, reader = folder(writable=True), folder(exact_rows=100)
    writer.prepare(layout())
    writer.put([entry(i) for i in range(50)], rows[:50])
    assert found(reader, rows[0], 1) == [0]
    writer.put([entry(i) for i in range(50, 300)], rows[50:])
    monkeypatch.delattr(Scan, "add")
    assert found(reader, rows[299], 1) == [299]


def test_a_graph_from_which_everything_is_taken(folder: Open) -> None:
    rows = unit_rows(30)
    writer = folder(writable=True, exact_rows=10)
    writer.prepare(layout())
    writer.put([entry(i) for i in range(30)], rows)
    assert found(writer, rows[0], 1) == [0]
    writer.remove([f"d{i}" for i in range(30)])
    assert found(writer, rows[0]) == []
    writer.put([entry(3)], rows[3:4])
    assert found(writer, rows[0]) == [3]


def test_a_full_disk_is_named_and_what_was_there_stays(folder: Open) -> None:
    writer = folder(writable=True)
    writer.prepare(layout())
    writer.put([entry(0)], unit_rows(1))
    [(pages,)] = writer._db.execute("PRAGMA page_count")
    writer._db.execute(f"PRAGMA max_page_count={pages + 2}")
    many = [entry(i) for i in range(1, 500)]
    with pytest.raises(Unavailable, match="database or disk is full"):
        writer.put(many, unit_rows(499))
    assert len(writer) == 1
    writer._db.execute("PRAGMA max_page_count=1000000")
    writer.put(many, unit_rows(499))
    assert len(writer) == 500


def test_a_graph_that_cannot_be_kept_is_one_line(tmp_path: Path) -> None:
    graph = Graph(8, "float32", tmp_path / "gone" / "graph")
    graph.add(np.arange(4, dtype=np.uint64), unit_rows(4, width=8))
    with pytest.raises(Unavailable, match="all items are in the index, but not its graph"):
        graph.save()


def test_a_graph_that_cannot_be_read_is_built_again(folder: Open, tmp_path: Path) -> None:
    rows = unit_rows(300)
    writer = folder(writable=True, exact_rows=100)
    writer.prepare(layout())
    writer.put([entry(i) for i in range(300)], rows)
    writer.settle()
    [path] = tmp_path.glob("index/graph-*")
    path.write_bytes(path.read_bytes()[:-50])
    assert found(folder(exact_rows=100), rows[299], 1) == [299]
    path.unlink()
    assert found(folder(exact_rows=100), rows[299], 1) == [299]
