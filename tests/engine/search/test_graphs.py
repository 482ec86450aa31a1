"""The graph of an index: built beside the searches by one process for all, and only ever a shortcut."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from qvl.engine.errors import Unavailable
from qvl.engine.search import graphs, tables
from qvl.engine.search.embedded import Embedded
from qvl.engine.search.near import Graph
from tests.engine.search.conftest import Open, built, entry, found, graphed, layout, unit_rows


class Adding:
    """Counts the rows put into graphs, by all indexes of this process; holds them up until released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, held: bool = False) -> None:
        self.rows = 0
        self.begun, self.release = threading.Event(), threading.Event()
        if not held:
            self.release.set()
        add = Graph.add

        def counted(graph: Graph, *given: np.ndarray) -> None:
            self.begun.set()
            assert self.release.wait(60)
            add(graph, *given)
            self.rows += len(given[0])

        monkeypatch.setattr(Graph, "add", counted)


def filled(folder: Open, count: int, **metadata: object) -> tuple[Embedded, np.ndarray]:
    writer, rows = folder(writable=True, exact_rows=100), unit_rows(count)
    writer.prepare(layout())
    writer.put([entry(i, **metadata) for i in range(count)], rows)
    return writer, rows


def test_what_is_loaded_is_not_read_again(folder: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = folder(make=True, exact_rows=100)
    reader.load()  # it is empty
    _, rows = filled(folder, 300)
    reader.load()
    built(reader)
    monkeypatch.delattr(tables, "vectors_after")
    assert found(reader, rows[7], 1) == [7]


def test_searches_go_on_while_a_graph_is_built(folder: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, rows = filled(folder, 300)
    adding = Adding(monkeypatch, held=True)
    reader = folder(exact_rows=100)
    assert found(reader, rows[299], 1) == [299]
    assert adding.begun.wait(10)
    writer.remove(["d0", "d299"])
    writer.put([entry(7)], unit_rows(1, seed=9))
    assert 299 not in found(reader, rows[299], 300)
    assert found(reader, unit_rows(1, seed=9)[0], 1) == [7]
    adding.release.set()
    built(reader)
    assert graphed(reader) == [*range(2, 8), *range(9, 300), 301]
    assert sorted(found(reader, rows[299], 300)) == list(range(1, 299))


def test_one_builds_for_all_and_saves_it(folder: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    _, rows = filled(folder, 300)
    adding = Adding(monkeypatch, held=True)
    readers = [folder(exact_rows=100) for _ in range(3)]
    for reader in readers:
        assert found(reader, rows[0], 1) == [0]
    adding.release.set()
    for reader in [*readers, folder(exact_rows=100)]:
        assert found(built(reader), rows[0], 1) == [0]
        assert len(graphed(reader)) == 300
    assert adding.rows == 300


def test_a_reader_that_fell_behind_loads_what_the_writer_settled(
    folder: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, _ = filled(folder, 300)
    writer.settle()
    reader = folder(exact_rows=100)
    reader.load()
    assert len(graphed(reader)) == 300
    later = unit_rows(900, seed=3)
    writer.put([entry(i) for i in range(300, 1200)], later)
    writer.settle()
    adding = Adding(monkeypatch)
    assert found(reader, later[0], 1) == [300]
    assert len(graphed(reader)) == 1200
    writer.put([entry(i) for i in range(300, 350)], later[850:])
    assert set(found(reader, later[850], 2)) == {300, 1150}
    assert len(graphed(built(reader))) == 1150
    assert adding.rows == 0


def test_a_graph_is_saved_while_it_grows(folder: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, _ = filled(folder, 300)
    monkeypatch.setattr(graphs, "CHUNK", 10)
    monkeypatch.setattr(graphs, "SAVED_ROWS", 50)
    saved, save = [], Graph.save
    monkeypatch.setattr(Graph, "save", lambda graph: (saved.append(len(graph)), save(graph)))
    writer.settle()
    assert saved == [50, 100, 150, 200, 250, 300]


def test_a_graph_that_cannot_be_saved_serves_its_process(
    folder: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer, rows = filled(folder, 300)

    def full(_: Graph) -> None:
        raise Unavailable("no room", code="index_failed")

    monkeypatch.setattr(Graph, "save", full)
    reader = folder(exact_rows=100)
    assert found(reader, rows[7], 1) == [7]
    assert len(graphed(built(reader))) == 300
    assert "no room" in caplog.text
    with pytest.raises(Unavailable, match="no room"):
        writer.settle()


def test_who_closes_does_not_wait_for_all_of_it(folder: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(folder, 300)
    reader = folder(exact_rows=100)
    monkeypatch.setattr(graphs, "CHUNK", 10)
    adding = Adding(monkeypatch, held=True)
    reader.load()
    assert adding.begun.wait(10)
    with ThreadPoolExecutor(1) as thread:
        closing = thread.submit(reader.close)
        while not reader._closed.is_set():
            time.sleep(0.01)
        adding.release.set()
        closing.result(10)
    assert adding.rows == 10


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
    graph = Graph(8, "float32", tmp_path / "gone" / "graph")
    graph.add(np.arange(4, dtype=np.uint64), unit_rows(4, width=8))
    with pytest.raises(Unavailable, match="all items are in the index, but not its graph"):
        graph.save()


def test_a_graph_that_cannot_be_read_is_built_again(folder: Open, tmp_path: Path) -> None:
    writer, rows = filled(folder, 300)
    writer.settle()
    [path] = tmp_path.glob("index/graph-*")
    path.write_bytes(path.read_bytes()[:-50])
    assert found(built(folder(exact_rows=100)), rows[299], 1) == [299]
    path.unlink()
    reader = folder(exact_rows=100)
    assert found(reader, rows[299], 1) == [299]
    assert len(graphed(built(reader))) == 300


def test_a_filter_far_from_the_query_walks_past_no_more_than_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, rows = Graph(32, "float32", tmp_path / "graph"), unit_rows(3000)
    numbers = np.arange(1, 3001, dtype=np.uint64)
    graph.add(numbers, rows)
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
