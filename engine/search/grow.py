"""The process that builds an index's graph: `python -m qvl.engine.search.grow FOLDER`.

usearch holds the interpreter while it saves (0.1 to 0.2 s for 42 MB), and what it adds is in the middle of
C++ when a server ends. It ends with whoever started it: when its standard input closes.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import select
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np

from qvl.engine.errors import QvlError, Unavailable
from qvl.engine.search import graphs, tables
from qvl.engine.search.index import Layout
from qvl.engine.search.near import Codes, Graph, Rows, empty

CHUNK = 512
"""Rows added at once: a second or two of one core, for which `search add` may be waited for as it ends."""
SAVED_ROWS = 50_000
"""Rows added between two savings; a process that is ended has built so many in vain at the most."""
_TURN_SECONDS = 0.2


class Growing:
    """A graph in memory, which may be changed."""

    def __init__(self, layout: Layout, path: Path) -> None:
        """The one in that file; empty without one, or with one of another version of usearch."""
        self._graph = empty(layout.prefix, layout.dtype)
        if path.exists():
            try:
                self._graph.load(str(path))
            except (ValueError, RuntimeError):
                self._graph = empty(layout.prefix, layout.dtype)

    @property
    def rows(self) -> Rows:
        return np.asarray(self._graph.keys[:], np.uint64) if len(self._graph) else np.empty(0, np.uint64)

    def add(self, rows: Rows, codes: Codes) -> None:
        # Several threads at once leave some of the first rows without a way to them.
        self._graph.add(rows, np.ascontiguousarray(codes), threads=0 if len(self._graph) else 1)

    def keep(self, rows: Rows) -> None:
        """Remove all others."""
        gone = np.setdiff1d(self.rows, rows, assume_unique=True)
        if len(gone):
            self._graph.remove(gone)

    def save(self, path: Path) -> None:
        """Raises Unavailable; without it nothing is lost but time."""
        draft = path.with_name("graph-new")
        try:
            self._graph.save(str(draft))
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
            draft.replace(path)
        except (RuntimeError, OSError) as error:
            with suppress(OSError):
                draft.unlink()
            raise Unavailable(
                f"all items are in the index, but its graph could not be saved in {path.parent}: {error}; "
                "make room, and the same command puts it there",
                code="index_failed",
            ) from None


def build(folder: Path, made: tables.Made, closed: threading.Event) -> None:
    """Save the graph of every row. May take an hour a million rows.

    Raises MadeAgain, or Unavailable when it cannot be saved or is `closed`.
    """
    layout = made.layout
    with closing(tables.connect(folder, graphs.BUSY_SECONDS, make=False)) as db, _alone(folder, closed):
        file = graphs.path(folder, made, tables.mark(db))
        if Graph(layout.prefix, layout.dtype, file).last >= tables.last(db):
            return
        graph, waiting = Growing(layout, file), 0
        graph.keep(tables.rows(db))
        for rows, codes in graphs.chunks(db, made, int(graph.rows.max(initial=0)), CHUNK, closed):
            graph.add(rows, codes)
            waiting += len(rows)
            if waiting >= SAVED_ROWS:
                waiting = 0
                _save(graph, db, made, folder)
        if waiting:
            _save(graph, db, made, folder)


def _save(graph: Growing, db: sqlite3.Connection, made: tables.Made, folder: Path) -> None:
    mark = 1 + secrets.randbelow((1 << 31) - 1)
    file = graphs.path(folder, made, mark)
    try:
        graph.save(file)
        db.execute("BEGIN IMMEDIATE")
        tables.put_mark(db, mark)
        db.execute("COMMIT")
    finally:
        if tables.made(db) != made:  # who forgot everything took this file away, or came too early for it
            file.unlink(missing_ok=True)
            raise graphs.MadeAgain("the index has just been made again; ask again", code="index_failed")
    for other in folder.glob("graph-*"):
        if other != file:
            other.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path, closed: threading.Event) -> Iterator[None]:
    """In a folder that may not be written there is no turn to wait for, nor anything to save."""
    try:
        handle = os.open(folder / "graph.lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise Unavailable(
            f"a graph of all items cannot be saved: {error}; make {folder} writable", code="index_failed"
        ) from None
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


def main(folder: Path) -> None:
    """Raises SystemExit with the reason."""
    # Ctrl-C reaches the whole group; the server decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _end_with(sys.stdin.fileno())
    os.nice(19)  # whoever answers requests comes first
    try:
        with closing(tables.connect(folder, graphs.BUSY_SECONDS, make=False)) as db:
            made = tables.made(db)
        if made is not None:
            with suppress(graphs.MadeAgain):
                build(folder, made, threading.Event())
    except (QvlError, sqlite3.Error) as error:
        raise SystemExit(str(error)) from None


def _end_with(pipe: int) -> None:
    """By SIGIO, which the kernel sends when the other end closes: a thread would wait for usearch."""
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([pipe], [], [], 0)[0]:  # it has closed before
        raise SystemExit("nobody waits for it")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
