"""The index in a folder: SQLite keeps everything, memory what is compared.

    FOLDER/items.sqlite  entries, vectors, metadata; each `put` is one transaction
    FOLDER/lock          held by who writes

One process writes at a time; any number read meanwhile, and see at their next search what was put. The folder
must be on a disk of this machine: SQLite's write-ahead log does not work over a network.

Not LanceDB: it searches no int8 vectors, its filters are SQL in a string, and it is 178 MB beside 56 MB here.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import orjson

from qvl.engine.errors import ConfigError, Unavailable
from qvl.engine.protocol import Condition, Hit
from qvl.engine.response import convert
from qvl.engine.search import facets, tables
from qvl.engine.search.index import Entry, Layout, Vectors, agreed
from qvl.engine.search.near import Rows
from qvl.engine.search.view import View, matrix

OVERSAMPLED = 4
"""Rounded or shortened vectors recall so many times the rows that are asked for; whole ones decide."""

_PRIMARY = 0xFF
"""The bits of SQLite's error codes that are not of its extended ones."""


class Embedded:
    def __init__(self, folder: Path, *, make: bool = False, writable: bool = False) -> None:
        """Raises ConfigError when there is no index (unless it may be made), it cannot be used, or another
        run writes to it; Unavailable when others hold it for long.
        """
        self._folder = folder
        self._guard: int | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._view = View(self._closed)
        with _opening(folder):
            if make or writable:
                folder.mkdir(parents=True, exist_ok=True)
            elif not (folder / tables.FILE).exists():
                raise ConfigError(f"there is no index at {folder}; make one with `qvl search add`")
            self._db = tables.connect(folder, make=make or writable)
            try:
                if writable:
                    self._guard = _exclusive(folder)
                    self._view.made = tables.made(self._db)
            except BaseException:
                self.close()
                raise

    @property
    def layout(self) -> Layout | None:
        with self._lock, self._as_unavailable():
            made = tables.made(self._db)
        return made.layout if made else None

    def prepare(self, layout: Layout) -> None:
        agreed(self.layout, layout)
        if self._view.made is None:
            with self._transaction("IMMEDIATE"):
                made = tables.begin(self._db, layout)
            self._view.made = made

    def known(self, ids: Sequence[str]) -> dict[str, str]:
        query = "SELECT id, digest FROM entries WHERE id IN (SELECT value FROM json_each(?))"
        with self._lock, self._as_unavailable():
            return dict(self._db.execute(query, (orjson.dumps(list(ids)).decode(),)))

    def put(self, entries: Sequence[Entry], vectors: Vectors) -> None:
        codes = convert(vectors, self._kept().dtype)
        with self._transaction("IMMEDIATE"):
            for entry, code in zip(entries, codes, strict=True):
                tables.replace(self._db, entry, code.tobytes())

    def remove(self, ids: Sequence[str]) -> int:
        with self._transaction("IMMEDIATE"):
            return sum(tables.remove(self._db, id) for id in set(ids))

    def find(self, vector: npt.NDArray[np.float32], count: int, where: Sequence[Condition]) -> list[Hit]:
        with self._transaction("DEFERRED"):
            near = self._view.caught_up(self._db)
            if near is None:
                return []
            layout = self._kept()
            if len(vector) != layout.dimensions:
                raise Unavailable("the index has just been made again; ask again", code="index_failed")
            code = convert(vector[None], layout.dtype)[0, : layout.prefix]
            rounded = layout.dtype == "int8" or layout.prefix < layout.dimensions
            wanted = count * OVERSAMPLED if rounded else count
            among = facets.fitting(self._db, where) if where else None
            return self._hits(near.nearest(code, wanted, among), vector, count)

    def __len__(self) -> int:
        with self._lock, self._as_unavailable():
            return tables.count(self._db)

    def load(self) -> None:
        with self._transaction("DEFERRED"):
            self._view.caught_up(self._db)

    def clear(self) -> None:
        with self._transaction("IMMEDIATE"):
            tables.clear(self._db)
            self._view.restart(self._db, None)

    def close(self) -> None:
        """Whoever reads it into memory stops."""
        self._closed.set()
        with self._lock:
            self._db.close()
            if self._guard is not None:
                os.close(self._guard)
                self._guard = None

    def _kept(self) -> Layout:
        if self._view.made is None:
            raise ConfigError(f"the index at {self._folder} is empty")
        return self._view.made.layout

    def _hits(self, rows: Rows, vector: npt.NDArray[np.float32], count: int) -> list[Hit]:
        """The best of these rows by the cosine of the query, unrounded, and the vector as it is kept."""
        found = tables.vectors_of(self._db, rows)
        if not found:
            return []
        kept = matrix(list(found.values()), self._kept()).astype(np.float32)
        cosines = kept @ vector / np.linalg.norm(kept, axis=1)
        order = np.argsort(-cosines, kind="stable")[:count]
        numbers = np.fromiter(found, np.uint64)[order]
        entries = tables.entries_of(self._db, numbers)
        return [
            Hit(similarity=float(cosines[at]), **entries[int(row)])
            for row, at in zip(numbers, order, strict=True)
            if int(row) in entries
        ]

    @contextmanager
    def _transaction(self, kind: Literal["IMMEDIATE", "DEFERRED"]) -> Iterator[None]:
        """What is written is on disk at its end; what another process puts meanwhile is seen next time."""
        with self._lock, self._as_unavailable():
            self._db.execute(f"BEGIN {kind}")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # On a full disk SQLite has rolled back itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _as_unavailable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise Unavailable(
                f"the index at {self._folder} cannot be used: {error}", code="index_failed"
            ) from None


@contextmanager
def _opening(folder: Path) -> Iterator[None]:
    """Another's lock goes away by itself; of all else somebody has to take care."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if getattr(error, "sqlite_errorcode", 0) & _PRIMARY == sqlite3.SQLITE_BUSY:
            raise Unavailable(f"the index at {folder} is in use: {error}", code="index_failed") from None
        said = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"the index at {folder} cannot be used ({said}); take another folder, or restore this one's "
            f"{tables.FILE} from a backup"
        ) from None


def _exclusive(folder: Path) -> int:
    handle = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ConfigError(f"another run is writing {folder}") from None
    return handle
