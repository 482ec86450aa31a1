"""The index in a folder: readers follow the writer, and beyond some size a graph is walked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qvl.engine.errors import ConfigError, Unavailable
from qvl.engine.protocol import Condition
from tests.engine.search.conftest import Open, entry, found, graphed, layout, unit_rows


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
        assert found(writer, rows[start], 1) == [start]  # a scan at first, then a graph beside it
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


def test_a_graph_from_which_everything_is_taken(folder: Open) -> None:
    rows = unit_rows(30)
    writer = folder(writable=True, exact_rows=10)
    writer.prepare(layout())
    writer.put([entry(i) for i in range(30)], rows)
    writer.settle()
    assert found(writer, rows[0], 1) == [0]
    assert len(graphed(writer)) == 30
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
