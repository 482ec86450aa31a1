"""The graph of an index in a folder, as its readers find it; `grow.py` builds it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qvl.engine.errors import Unavailable
from qvl.engine.search import tables
from qvl.engine.search.index import Layout
from qvl.engine.search.near import Codes, Graph, Rows

BUSY_SECONDS = 30.0


class MadeAgain(Unavailable):
    """Everything was forgotten meanwhile: what was read belongs to nothing any more."""


@dataclass(frozen=True, slots=True)
class Loaded:
    graph: Graph
    change: int
    """The last one that it knows of."""
    mark: int


def path(folder: Path, made: tables.Made, mark: int) -> Path:
    """Each saving has its own, and the table names it: beside a table that was put back from a copy lie
    graphs of other rows that have the same numbers."""
    return folder / f"graph-{made.name}-{mark:08x}.usearch"


def load(db: sqlite3.Connection, folder: Path, made: tables.Made) -> Loaded:
    """The graph as it lies there, without the rows that are gone; an empty one where none lies."""
    change = tables.change(db)
    graph, mark = _latest(folder, made)
    if len(graph):
        graph.remove(np.setdiff1d(graph.rows, tables.rows(db), assume_unique=True))
    return Loaded(graph, change, mark)


def _latest(folder: Path, made: tables.Made) -> tuple[Graph, int]:
    """Whatever transaction the reader is in: the file that was the latest at its beginning may be gone."""
    with closing(tables.connect(folder, BUSY_SECONDS, make=False)) as db:
        while True:
            mark = tables.mark(db)
            graph = Graph(made.layout.prefix, made.layout.dtype, path(folder, made, mark))
            if len(graph) or tables.mark(db) == mark:
                return graph, mark


def chunks(
    db: sqlite3.Connection, made: tables.Made, after: int, most: int, closed: threading.Event
) -> Iterator[tuple[Rows, Codes]]:
    """The vectors behind that row, as far as they are compared.

    Raises MadeAgain, or Unavailable when `closed`.
    """
    while True:
        if closed.is_set():
            raise Unavailable("the index is being closed", code="index_failed")
        rows, data = tables.vectors_after(db, after, most)
        if tables.made(db) != made:  # looked at behind the rows, which are of the old one then
            raise MadeAgain("the index has just been made again; ask again", code="index_failed")
        if not rows:
            return
        yield np.asarray(rows, np.uint64), matrix(data, made.layout)[:, : made.layout.prefix]
        after = rows[-1]


def matrix(data: Sequence[bytes], layout: Layout) -> npt.NDArray[Any]:
    dtype = np.dtype(layout.dtype).newbyteorder("<")
    return np.frombuffer(b"".join(data), dtype).reshape(len(data), layout.dimensions)
