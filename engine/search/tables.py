"""The tables of an embedded index, and every statement on them but those of the filters."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from qvl.engine.errors import ConfigError
from qvl.engine.search import facets
from qvl.engine.search.index import Entry, Layout
from qvl.engine.search.near import Rows

FILE = "items.sqlite"
APPLICATION = 0x71766C31  # "qvl1": the file's kind and the version of its tables

# A row's number is never used again, so that whoever has seen row n has only to read on from there; `gone`
# tells it what was taken away behind it, the last KEPT. Vectors have a table of their own, to be read without
# the items.
SCHEMA = """
CREATE TABLE IF NOT EXISTS made (name TEXT NOT NULL, layout TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
  row INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  digest TEXT NOT NULL,
  item BLOB NOT NULL,
  metadata BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS vectors (row INTEGER PRIMARY KEY, code BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS facets (
  key TEXT, kind INTEGER, value, row INTEGER, PRIMARY KEY (key, kind, value, row)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS facets_of ON facets (row);
CREATE TABLE IF NOT EXISTS gone (change INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL);
"""
TABLES = ("made", "entries", "vectors", "facets", "gone")
BUSY_SECONDS = 30.0
KEPT = 10_000
"""Rows taken away that are remembered; who has missed more of them compares all that there are."""


@dataclass(frozen=True, slots=True)
class Made:
    name: str
    """Another one after everything was forgotten."""
    layout: Layout


@dataclass(slots=True)
class Seen:
    """How far a reader has followed."""

    row: int = 0
    change: int = 0
    version: int = -1


def connect(folder: Path, *, make: bool) -> sqlite3.Connection:
    """For use under a lock, in any thread; transactions are begun and ended by hand. Raises ConfigError."""
    db = sqlite3.connect(folder / FILE, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        # A commit is on disk when it returns, and readers do not wait for writers.
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        if make and db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            # Several servers may find nothing at once.
            db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id={APPLICATION}; COMMIT;")
        if db.execute("PRAGMA application_id").fetchone() != (APPLICATION,):
            raise ConfigError(f"{folder} is not an index that this version of qvl made")
    except BaseException:
        db.close()
        raise
    return db


def version(db: sqlite3.Connection) -> int:
    """Another one after any commit, this connection's included."""
    [(others,)] = db.execute("PRAGMA data_version")
    return int(others) * (1 << 32) + db.total_changes


def count(db: sqlite3.Connection) -> int:
    [(rows,)] = db.execute("SELECT count(*) FROM entries")
    return int(rows)


def made(db: sqlite3.Connection) -> Made | None:
    found = db.execute("SELECT name, layout FROM made").fetchone()
    return Made(found[0], Layout(**orjson.loads(found[1]))) if found else None


def begin(db: sqlite3.Connection, layout: Layout) -> Made:
    new = Made(uuid.uuid4().hex[:12], layout)
    db.execute("INSERT INTO made VALUES (?, ?)", (new.name, orjson.dumps(asdict(layout)).decode()))
    return new


def remove(db: sqlite3.Connection, id: str) -> bool:
    old = db.execute("SELECT row FROM entries WHERE id = ?", (id,)).fetchone()
    if not old:
        return False
    for table in ("entries", "vectors", "facets"):
        db.execute(f"DELETE FROM {table} WHERE row = ?", old)
    change = db.execute("INSERT INTO gone (row) VALUES (?)", old).lastrowid
    db.execute("DELETE FROM gone WHERE change <= ? - ?", (change, KEPT))
    return True


def replace(db: sqlite3.Connection, entry: Entry, code: bytes) -> None:
    remove(db, entry.id)
    row = db.execute(
        "INSERT INTO entries (id, digest, item, metadata) VALUES (?, ?, ?, ?)",
        (entry.id, entry.digest, entry.item, orjson.dumps(entry.metadata)),
    ).lastrowid
    db.execute("INSERT INTO vectors VALUES (?, ?)", (row, code))
    db.executemany(
        "INSERT OR IGNORE INTO facets VALUES (?, ?, ?, ?)",
        [(*facet, row) for facet in facets.of(entry.metadata)],
    )


def clear(db: sqlite3.Connection) -> None:
    for table in TABLES:
        db.execute(f"DELETE FROM {table}")


def change(db: sqlite3.Connection) -> int:
    """The last one that took a row away."""
    found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'gone'").fetchone()
    return int(found[0]) if found else 0


def gone(db: sqlite3.Connection, after: int) -> Rows | None:
    """The rows taken away since that change; None: longer ago than is remembered."""
    found = db.execute("SELECT row FROM gone WHERE change > ?", (after,)).fetchall()
    complete = len(found) == change(db) - after
    return np.asarray([row for (row,) in found], np.uint64) if complete else None


def rows(db: sqlite3.Connection) -> Rows:
    return np.fromiter((row for (row,) in db.execute("SELECT row FROM entries")), np.uint64)


def vectors_after(db: sqlite3.Connection, row: int, most: int) -> tuple[list[int], list[bytes]]:
    found = db.execute("SELECT row, code FROM vectors WHERE row > ? ORDER BY row LIMIT ?", (row, most))
    pairs = found.fetchall()
    return [number for number, _ in pairs], [code for _, code in pairs]


def vectors_of(db: sqlite3.Connection, rows: Iterable[int]) -> dict[int, bytes]:
    return dict(_chosen(db, "SELECT row, code FROM vectors", rows))


def entries_of(db: sqlite3.Connection, rows: Iterable[int]) -> dict[int, dict[str, Any]]:
    return {
        row: {"id": id, "item": item, "metadata": orjson.loads(metadata)}
        for row, id, item, metadata in _chosen(db, "SELECT row, id, item, metadata FROM entries", rows)
    }


def _chosen(db: sqlite3.Connection, select: str, rows: Iterable[int]) -> Sequence[Any]:
    # A JSON list is one parameter however long it is.
    wanted = orjson.dumps([int(row) for row in rows]).decode()
    return db.execute(f"{select} WHERE row IN (SELECT value FROM json_each(?))", (wanted,)).fetchall()
