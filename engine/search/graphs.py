"""The graph of an index in a folder, as its readers find it; `grow.py` builds it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
    stamp: tuple[int, int] | None
    """Of its file."""


def path(folder: Path, made: tables.Made) -> Path:
    return folder / f"graph-{made.name}.usearch"


def stamp(file: Path) -> tuple[int, int] | None:
    """Another one for each file that was put in its place; None: there is none."""
    with suppress(FileNotFoundError):
        found = file.stat()
        return found.st_ino, found.st_mtime_ns
    return None


def load(db: sqlite3.Connection, folder: Path, made: tables.Made) -> Loaded:
    """The graph as it lies there, without the rows that are gone; an empty one where none lies."""
    file = path(folder, made)
    stamped, change = stamp(file), tables.change(db)
    graph = Graph(made.layout.prefix, made.layout.dtype, file)
    if len(graph):
        graph.remove(np.setdiff1d(graph.rows, tables.rows(db), assume_unique=True))
    return Loaded(graph, change, stamped)


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
