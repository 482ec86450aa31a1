"""What a reader has of an index in memory, and how it follows those who write."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from qvl.engine.search import graphs, tables
from qvl.engine.search.near import BLOCK, Near


class View:
    """For use under the lock of the connection."""

    def __init__(self, folder: Path, exact_rows: int, closed: threading.Event) -> None:
        self.made: tables.Made | None = None
        self._folder, self._exact_rows, self._closed = folder, exact_rows, closed
        self._near: Near | None = None
        self._seen = tables.Seen()
        self._start = 0
        """The scan is of all rows behind this one."""
        self._mark = 0
        """Of the graph here."""

    @property
    def outgrown(self) -> bool:
        """Whether a graph of more rows is due."""
        return self._near is not None and len(self._near.rest) > self._exact_rows

    def many(self, db: sqlite3.Connection) -> bool:
        return tables.count(db) > self._exact_rows

    def caught_up(self, db: sqlite3.Connection) -> Near | None:
        """Every row of this transaction; None: the index is empty."""
        version = tables.version(db)
        if version != self._seen.version:
            made = tables.made(db)
            if made is None or made != self.made or self._near is None or self._overtaken(db):
                self.restart(db, made)
            if self._near is not None and made is not None:
                self._follow(db, self._near, made)
            self._seen.version = version
        return self._near

    def restart(self, db: sqlite3.Connection, made: tables.Made | None) -> None:
        self.made, self._near, self._seen, self._start = made, None, tables.Seen(), 0
        if made is not None:
            self._near = Near()
            if self.many(db):
                self.take(graphs.load(db, self._folder, made))
            else:
                self._seen.change = tables.change(db)

    def take(self, loaded: graphs.Loaded) -> None:
        """That graph in place of the one here."""
        if self._near is None:
            return
        last = loaded.graph.last
        if last < self._start:  # and what this one holds behind it is neither in that one nor in the scan
            self._near.rest.remove(self._near.rest.rows)
            self._seen.row = last
        self._near.take(loaded.graph)
        self._start, self._seen.row = last, max(self._seen.row, last)
        # What it does not know of is taken out once more: that does the others no harm.
        self._seen.change, self._seen.version = loaded.change, -1
        self._mark = loaded.mark

    def _overtaken(self, db: sqlite3.Connection) -> bool:
        """Whether much is missing here, and a graph lies there that is not this one."""
        missing = tables.last(db) - self._seen.row
        return missing > self._exact_rows and self._mark != tables.mark(db)

    def _follow(self, db: sqlite3.Connection, near: Near, made: tables.Made) -> None:
        """Take out the rows that are gone and take in those that are new, in the order of their numbers."""
        change, gone = tables.change(db), tables.gone(db, self._seen.change)
        if gone is None:
            near.keep(tables.rows(db))
        else:
            near.remove(gone)
        self._seen.change = change
        for rows, codes in graphs.chunks(db, made, self._seen.row, BLOCK, self._closed):
            near.add(rows, codes)
            self._seen.row = int(rows[-1])
