"""The vectors in memory: a scan of all of them, or beyond EXACT_ROWS usearch's HNSW graph.

Both are derived from the table of vectors; the graph's file only saves the building. Neither is safe for
several threads at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from usearch.compiled import MetricKind
from usearch.index import Index, search

from qvl.engine.errors import Unavailable
from qvl.engine.search.index import Dtype

Rows: TypeAlias = npt.NDArray[np.uint64]
Codes: TypeAlias = npt.NDArray[Any]

EXACT_ROWS = 50_000
"""Up to so many rows all are compared: a few milliseconds, nothing to build, and nothing is missed."""
EXPANSION = 256
"""Candidates that a walk over the graph keeps at least; more of them find more and take longer."""
KINDS = {"int8": "i8", "float16": "f16", "float32": "f32"}


class Near(Protocol):
    def __len__(self) -> int: ...

    @property
    def last(self) -> int:
        """The highest row that it holds, 0 without any."""
        ...

    def add(self, rows: Rows, codes: Codes) -> None:
        """Rows come in the order of their numbers."""
        ...

    def remove(self, rows: Rows) -> None:
        """Those that are not there do no harm."""
        ...

    def nearest(self, code: Codes, count: int, among: Rows | None = None) -> Rows:
        """The rows nearest by cosine, best first; `among` are the only ones that count."""
        ...

    def save(self) -> None:
        """Raises Unavailable; without it nothing is lost but time."""
        ...


class Scan:
    def __init__(self, width: int, dtype: Dtype) -> None:
        self._rows = np.empty(0, np.uint64)
        self._codes: Codes = np.empty((0, width), dtype)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def last(self) -> int:
        return int(self._rows[-1]) if len(self) else 0

    def add(self, rows: Rows, codes: Codes) -> None:
        self._rows = np.concatenate([self._rows, rows])
        self._codes = np.concatenate([self._codes, codes])

    def remove(self, rows: Rows) -> None:
        if len(rows):
            left = ~np.isin(self._rows, rows)
            self._rows, self._codes = self._rows[left], self._codes[left]

    def nearest(self, code: Codes, count: int, among: Rows | None = None) -> Rows:
        rows, codes = self._rows, self._codes
        if among is not None:
            fits = np.isin(rows, among)
            rows, codes = rows[fits], codes[fits]
        return rows[_scanned(codes, code, count)]

    def save(self) -> None:
        """Nothing to keep: reading the table again takes no time."""


class Graph:
    def __init__(self, width: int, dtype: Dtype, path: Path, few: int = EXACT_ROWS // 5) -> None:
        """Of up to `few` rows that fit a filter all are compared; of more, what a walk finds is sieved."""
        self._path, self._few = path, few
        self._graph = _empty(width, dtype)
        if path.exists():
            try:
                self._graph.load(str(path))
            except (ValueError, RuntimeError):  # from another version of usearch: it is built again
                self._graph = _empty(width, dtype)

    def __len__(self) -> int:
        return len(self._graph)

    @property
    def last(self) -> int:
        return int(np.max(self._graph.keys[:])) if len(self) else 0

    def add(self, rows: Rows, codes: Codes) -> None:
        self._graph.add(rows, np.ascontiguousarray(codes))

    def remove(self, rows: Rows) -> None:
        if len(held := self._held(rows)):
            self._graph.remove(held)

    def nearest(self, code: Codes, count: int, among: Rows | None = None) -> Rows:
        if among is None:
            return self._walked(code, count)
        if len(among) > self._few:
            return self._sieved(among, code, count)
        if not len(rows := self._held(among)):
            return rows
        codes = np.stack(cast("tuple[Codes, ...]", self._graph.get(rows)))
        return rows[_scanned(codes, code, count)]

    def save(self) -> None:
        draft = self._path.with_name(f"{self._path.name}.new")
        try:
            self._graph.save(str(draft))
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
            draft.replace(self._path)
        except (RuntimeError, OSError) as error:
            draft.unlink(missing_ok=True)
            raise Unavailable(
                f"all items are in the index, but not its graph {self._path}: {error}; make room, and the "
                "same command puts it there",
                code="index_failed",
            ) from None

    def _walked(self, code: Codes, count: int) -> Rows:
        if not len(self):
            return np.empty(0, np.uint64)
        found = self._graph.search(np.ascontiguousarray(code), min(count, len(self)))
        return np.asarray(found.keys, np.uint64)

    def _sieved(self, among: Rows, code: Codes, count: int) -> Rows:
        """Walk further until enough of what is found may be kept."""
        asked = count
        while True:
            asked = min(2 * asked * -(-len(self) // len(among)), len(self))
            found = self._walked(code, asked)
            kept = found[np.isin(found, among)]
            if len(kept) >= count or asked == len(self):
                return kept[:count]

    def _held(self, rows: Rows) -> Rows:
        return rows[np.asarray(self._graph.contains(rows), np.bool_)] if len(rows) else rows


def _empty(width: int, dtype: Dtype) -> Index:
    return Index(ndim=width, metric=MetricKind.Cos, dtype=KINDS[dtype], expansion_search=EXPANSION)


def _scanned(codes: Codes, code: Codes, count: int) -> npt.NDArray[np.int64]:
    """Places of the nearest, best first."""
    if not len(codes):
        return np.empty(0, np.int64)
    found = search(
        np.ascontiguousarray(codes),
        np.ascontiguousarray(code),
        min(count, len(codes)),
        MetricKind.Cos,
        exact=True,
    )
    return np.asarray(found.keys, np.int64)
