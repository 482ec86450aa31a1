"""The vectors in memory, each of which is compared: nothing is missed, and there is nothing to build."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from usearch.compiled import MetricKind
from usearch.index import search

from qvl.engine.machine import cores
from qvl.engine.search.index import Dtype

Rows: TypeAlias = npt.NDArray[np.uint64]
Codes: TypeAlias = npt.NDArray[Any]

BLOCK = 8192
"""Rows of a filter that are copied at once, and for which room is made at once."""
THREADS = min(8, cores())
"""Of a search: they wait for memory before they are many, and usearch starts them each time."""


class Near:
    """In no order. Not safe for several threads at once."""

    def __init__(self, width: int, dtype: Dtype) -> None:
        self._count = 0
        self._rows, self._codes = np.empty(0, np.uint64), np.empty((0, width), dtype)

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> Rows:
        return self._rows[: self._count].copy()

    def add(self, rows: Rows, codes: Codes) -> None:
        """None of them may be here."""
        end = self._count + len(rows)
        if end > len(self._rows):
            # In place, so that there are never two of them; no view of the old ones is left.
            self._codes.resize((end + BLOCK, codes.shape[1]), refcheck=False)
            self._rows.resize(end + BLOCK, refcheck=False)
        self._rows[self._count : end], self._codes[self._count : end] = rows, codes
        self._count = end

    def remove(self, rows: Rows) -> None:
        """Those that are not there do no harm."""
        gone = np.isin(self._rows[: self._count], rows)
        left = self._count - int(np.count_nonzero(gone))
        holes, moved = np.flatnonzero(gone[:left]), left + np.flatnonzero(~gone[left:])
        self._rows[holes], self._codes[holes] = self._rows[moved], self._codes[moved]
        self._count = left

    def keep(self, rows: Rows) -> None:
        """Remove all others."""
        self.remove(np.setdiff1d(self.rows, rows, assume_unique=True))

    def nearest(self, code: Codes, count: int, among: Rows | None = None) -> Rows:
        """The rows nearest by cosine, best first; `among` are the only ones that count."""
        code = np.ascontiguousarray(code)
        rows, distances = [np.empty(0, np.uint64)], [np.empty(0, np.float32)]
        for numbers, codes in self._parts(among):
            most = min(count, len(numbers))
            found = search(codes, code, most, MetricKind.Cos, exact=True, threads=THREADS)
            rows.append(numbers[np.asarray(found.keys, np.int64)])
            distances.append(np.asarray(found.distances, np.float32))
        order = np.argsort(np.concatenate(distances), kind="stable")[:count]
        return np.concatenate(rows)[order]

    def _parts(self, among: Rows | None) -> Iterator[tuple[Rows, Codes]]:
        rows, codes = self._rows[: self._count], self._codes[: self._count]
        if among is None:
            if len(rows):
                yield rows, codes
            return
        fitting = np.flatnonzero(np.isin(rows, among))
        for start in range(0, len(fitting), BLOCK):
            part = fitting[start : start + BLOCK]
            yield rows[part], codes[part]
