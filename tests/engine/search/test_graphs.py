"""The graph of an index: only ever a shortcut."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from qvl.engine.errors import Unavailable
from qvl.engine.search import graphs, grow, tables
from qvl.engine.search.grow import Growing
from qvl.engine.search.near import Graph
from tests.engine.search.conftest import Open, built, entry, filled, found, graphed, layout, unit_rows


def test_what_is_loaded_is_not_read_again(folder: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = folder(make=True, exact_rows=100)
    reader.load()  # it is empty
    _, rows = filled(folder, 300)
    reader.load()
    built(reader)
    monkeypatch.delattr(tables, "vectors_after")
    assert found(reader, rows[7], 1) == [7]


def test_a_reader_that_fell_behind_loads_what_the_writer_settled(folder: Open) -> None:
    writer, _ = filled(folder, 300)
    writer.settle()
    reader = folder(exact_rows=100)
    reader.load()
    assert len(graphed(reader)) == 300
    later = unit_rows(900, seed=3)
    writer.put([entry(i) for i in range(300, 1200)], later)
    writer.settle()
    assert found(reader, later[0], 1) == [300]
    assert len(graphed(reader)) == 1200
    writer.put([entry(i) for i in range(300, 350)], later[850:])
    assert set(found(reader, later[850], 2)) == {300, 1150}
    assert len(graphed(reader)) == 1150
    assert reader._builder._thread is None


@pytest.mark.parametrize("early", [True, False])
def test_who_forgets_everything_while_a_graph_is_saved(
    folder: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    writer, _ = filled(folder, 300)
    made, save = writer._view.made, Growing.save
    if early:  # it takes the draft away
        monkeypatch.setattr(os, "fsync", lambda _: writer.clear())
    else:  # it looks for files before there is one

        def late(graph: Growing, path: Path) -> None:
            writer.clear()
            save(graph, path)

        monkeypatch.setattr(Growing, "save", late)
    assert made
    with pytest.raises(graphs.MadeAgain):
        grow.build(tmp_path / "index", made, threading.Event())
    assert not list(tmp_path.glob("index/graph-*"))


def test_a_graph_is_saved_while_it_grows(folder: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, _ = filled(folder, 300)
    monkeypatch.setattr(grow, "CHUNK", 10)
    monkeypatch.setattr(grow, "SAVED_ROWS", 50)
    saved, save = [], Growing.save
    monkeypatch.setattr(
        Growing, "save", lambda graph, path: (saved.append(len(graph.rows)), save(graph, path))
    )
    writer.settle()
    assert saved == [50, 100, 150, 200, 250, 300]


def test_what_is_read_again_behind_a_shorter_graph(folder: Open, tmp_path: Path) -> None:
    """Somebody took the file away, and it was begun again."""
    writer, rows = filled(folder, 300)
    writer.settle()
    made = writer._view.made
    [path] = tmp_path.glob("index/graph-*.usearch")
    assert made
    short = Growing(layout(), path)
    short.keep(np.arange(1, 101, dtype=np.uint64))
    reader = folder(exact_rows=100)
    reader.load()
    short.save(graphs.path(path.parent, made, 7))
    with writer._transaction("IMMEDIATE"):
        tables.put_mark(writer._db, 7)
    reader._take()
    assert sorted(found(reader, rows[0], 300)) == list(range(300))


def test_rows_that_are_gone_are_not_remembered_for_ever(
    folder: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "KEPT", 5)
    writer, rows = filled(folder, 300)
    writer.settle()
    scan, graph = folder(), folder(exact_rows=100)
    for reader in (scan, graph):
        assert found(reader, rows[0], 1) == [0]
    for seed in range(1, 4):
        writer.put([entry(i) for i in range(20)], unit_rows(20, seed=seed))
    assert writer._db.execute("SELECT count(*) FROM gone").fetchone() == (5,)
    live = {row for (row,) in writer._db.execute("SELECT row FROM entries")}
    for reader in (scan, graph, folder(exact_rows=100)):
        assert found(reader, unit_rows(1, seed=3)[0], 1) == [0]
        near = reader._view._near
        assert near is not None
        assert sorted([*graphed(reader), *near.rest.rows.tolist()]) == sorted(live)


def test_a_graph_that_cannot_be_kept_is_one_line(tmp_path: Path) -> None:
    graph = Growing(layout(dimensions=8, prefix=8), tmp_path / "graph")
    graph.add(np.arange(4, dtype=np.uint64), unit_rows(4, width=8))
    with pytest.raises(Unavailable, match="its graph could not be saved"):
        graph.save(tmp_path / "gone" / "graph")


def test_a_graph_that_cannot_be_read_is_built_again(folder: Open, tmp_path: Path) -> None:
    writer, rows = filled(folder, 300)
    writer.settle()
    [path] = tmp_path.glob("index/graph-*")
    path.write_bytes(path.read_bytes()[:-50])
    assert found(built(folder(exact_rows=100)), rows[299], 1) == [299]
    path.unlink(missing_ok=True)
    reader = folder(exact_rows=100)
    assert found(reader, rows[299], 1) == [299]
    assert len(graphed(built(reader))) == 300


def test_a_table_put_back_from_a_copy_does_not_take_the_graph_of_later_rows(
    folder: Open, tmp_path: Path
) -> None:
    writer, rows = filled(folder, 300)
    writer.settle()
    with closing(sqlite3.connect(tmp_path / "copy")) as copy:
        writer._db.backup(copy)
    writer.put([entry(i) for i in range(300, 400)], unit_rows(100, seed=1))
    writer.settle()
    writer.close()
    Path(tmp_path, "copy").replace(tmp_path / "index" / tables.FILE)
    writer, others = folder(writable=True, exact_rows=100), unit_rows(100, seed=2)
    writer.put([entry(i) for i in range(500, 600)], others)
    for reader in (writer, built(folder(exact_rows=100))):
        assert [found(reader, each, 1) for each in others] == [[i] for i in range(500, 600)]
        assert found(reader, rows[7], 1) == [7]


def test_rows_taken_out_of_a_graph_are_passed_over(tmp_path: Path) -> None:
    growing, rows = Growing(layout(), tmp_path / "graph"), unit_rows(2000)
    numbers = np.arange(1, 2001, dtype=np.uint64)
    growing.add(numbers, rows)
    growing.save(tmp_path / "graph")
    graph = Graph(32, "float32", tmp_path / "graph")
    (tmp_path / "graph").unlink()
    nearest = numbers[np.argsort(-(rows @ rows[0]), kind="stable")]
    for gone in (nearest[:300], nearest[250:350], np.asarray([5000], np.uint64)):
        graph.remove(gone)
    assert graph.nearest(rows[0], 10).tolist() == nearest[350:360].tolist()
    assert graph.nearest(rows[0], 2, nearest[340:360]).tolist() == nearest[350:352].tolist()
    assert set(graph.rows) == set(nearest[350:])
    assert len(graph) == 1650
    graph.remove(numbers)
    assert graph.nearest(rows[0], 10).tolist() == []
    assert (len(graph), graph.last) == (0, 0)


def test_a_filter_far_from_the_query_walks_past_no_more_than_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing, rows = Growing(layout(), tmp_path / "graph"), unit_rows(3000)
    numbers = np.arange(1, 3001, dtype=np.uint64)
    growing.add(numbers, rows)
    growing.save(tmp_path / "graph")
    graph = Graph(32, "float32", tmp_path / "graph")
    nearest = numbers[np.argsort(-(rows @ rows[0]), kind="stable")]
    walked, walk = [], Graph._walked

    def counted(graph: Graph, code: np.ndarray, count: int) -> np.ndarray:
        walked.append(count)
        return walk(graph, code, count)

    monkeypatch.setattr(Graph, "_walked", counted)
    far, even = np.sort(nearest[-1500:]), numbers[::2]
    assert graph.nearest(rows[0], 100, far).tolist() == nearest[1500:1600].tolist()
    assert sum(walked) <= len(far)
    walked.clear()
    assert set(graph.nearest(rows[0], 100, even)) <= set(even)
    assert walked == [400]
    walked.clear()
    few = np.sort(nearest[::100])
    assert graph.nearest(rows[0], 10, few).tolist() == nearest[::100][:10].tolist()
    assert walked == []
