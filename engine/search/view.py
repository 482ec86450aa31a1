"""What a reader has of an index in memory, and how it follows those who write."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qvl.engine.errors import Unavailable
from qvl.engine.search import tables
from qvl.engine.search.index import Layout
from qvl.engine.search.near import Codes, Near, Rows

READ = 8192
"""Rows read at once."""


class View:
    """For use under the lock of the connection."""

    def __init__(self, closed: threading.Event) -> None:
        self.made: tables.Made | None = None
        self._closed = closed
        self._near: Near | None = None
        self._seen = tables.Seen()

    def caught_up(self, db: sqlite3.Connection) -> Near | None:
        """Every row of this transaction; None: the index is empty.

        Raises Unavailable when the index is closed meanwhile.
        """
        version = tables.version(db)
        if version != self._seen.version:
            made = tables.made(db)
            if made is None or made != self.made or self._near is None:
                self.restart(db, made)
            if self._near is not None and made is not None:
                self._follow(db, self._near, made.layout)
            self._seen.version = version
        return self._near

    def restart(self, db: sqlite3.Connection, made: tables.Made | None) -> None:
        self.made, self._seen = made, tables.Seen(change=tables.change(db))
        self._near = Near(made.layout.prefix, made.layout.dtype) if made else None

    def _follow(self, db: sqlite3.Connection, near: Near, layout: Layout) -> None:
        """Take out the rows that are gone and take in those that are new, in the order of their numbers."""
        change, gone = tables.change(db), tables.gone(db, self._seen.change)
        if gone is None:
            near.keep(tables.rows(db))
        elif len(gone):
            near.remove(gone)
        self._seen.change = change
        for rows, codes in self._new(db, layout):
            near.add(rows, codes)
            self._seen.row = int(rows[-1])

    def _new(self, db: sqlite3.Connection, layout: Layout) -> Iterator[tuple[Rows, Codes]]:
        """The vectors that were not seen, as far as they are compared."""
        while True:
            if self._closed.is_set():
                raise Unavailable("the index is being closed", code="index_failed")
            rows, data = tables.vectors_after(db, self._seen.row, READ)
            if not rows:
                return
            yield np.asarray(rows, np.uint64), matrix(data, layout)[:, : layout.prefix]


def matrix(data: Sequence[bytes], layout: Layout) -> npt.NDArray[Any]:
    dtype = np.dtype(layout.dtype).newbyteorder("<")
    return np.frombuffer(b"".join(data), dtype).reshape(len(data), layout.dimensions)
