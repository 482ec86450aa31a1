"""The graph of an index in a folder, built beside the searches by one process for all.

FOLDER/graph-*.usearch  the graph; replaced whole, so that it may be loaded at any time
FOLDER/graph.lock       held by who builds: the others wait, and load what was built
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qvl.engine.errors import Unavailable
from qvl.engine.search import tables
from qvl.engine.search.index import Layout
from qvl.engine.search.near import Codes, Graph, Rows

CHUNK = 512
"""Rows added at once: a second or two of one core, for which who closes the index may wait."""
SAVED_ROWS = 50_000
"""Rows added between two savings; a process that is ended has built so many in vain at the most."""
BUSY_SECONDS = 30.0
_TURN_SECONDS = 0.2


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
    """The vectors behind that row, as far as they are compared. Raises Unavailable when `closed`."""
    while True:
        if closed.is_set():
            raise Unavailable("the index is being closed", code="index_failed")
        rows, data = tables.vectors_after(db, after, most)
        if tables.made(db) != made:  # looked at behind the rows, which are of the old one then
            raise Unavailable("the index has just been made again; ask again", code="index_failed")
        if not rows:
            return
        yield np.asarray(rows, np.uint64), matrix(data, made.layout)[:, : made.layout.prefix]
        after = rows[-1]


def build(folder: Path, made: tables.Made, closed: threading.Event) -> tuple[Loaded, Unavailable | None]:
    """The graph of every row, and why it could not be saved, if it could not.

    May take an hour a million rows. Raises Unavailable when `closed`.
    """
    file = path(folder, made)
    with closing(tables.connect(folder, BUSY_SECONDS, make=False)) as db, _alone(folder, closed):
        found = load(db, folder, made)
        graph, waiting, failed = found.graph, 0, None
        for rows, codes in chunks(db, made, graph.last, CHUNK, closed):
            graph.add(rows, codes)
            waiting += len(rows)
            if waiting >= SAVED_ROWS:
                waiting, failed = 0, _saved(graph)
        if waiting:
            failed = _saved(graph)
        return Loaded(graph, found.change, stamp(file)), failed


def matrix(data: Sequence[bytes], layout: Layout) -> npt.NDArray[Any]:
    dtype = np.dtype(layout.dtype).newbyteorder("<")
    return np.frombuffer(b"".join(data), dtype).reshape(len(data), layout.dimensions)


def _saved(graph: Graph) -> Unavailable | None:
    try:
        graph.save()
    except Unavailable as error:
        return error
    return None


@contextmanager
def _alone(folder: Path, closed: threading.Event) -> Iterator[None]:
    """In a folder that may not be written there is no turn to wait for: each builds its own."""
    try:
        handle = os.open(folder / "graph.lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError:
        yield
        return
    try:
        while not _taken(handle):
            if closed.wait(_TURN_SECONDS):
                raise Unavailable("the index is being closed", code="index_failed")
        yield
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
