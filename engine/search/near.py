"""The vectors in memory: a scan of all, or beyond EXACT_ROWS usearch's HNSW graph and a scan of the rest.

Both are derived from the table of vectors; the graph's file only saves the building. Neither is safe for
several threads at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias, cast

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
BLOCK = 8192
"""Rows compared at once: one more or one less copies no more than these."""
KINDS = {"int8": "i8", "float16": "f16", "float32": "f32"}


class Near:
    """A graph, where there is one, and a scan of the rows after its last."""

    def __init__(self, width: int, dtype: Dtype, graph: Graph | None = None) -> None:
        self.graph = graph
        self.rest = Scan(width, dtype)

    def __len__(self) -> int:
        return len(self.rest) + (len(self.graph) if self.graph else 0)

    def add(self, rows: Rows, codes: Codes) -> None:
        """Rows come in the order of their numbers."""
        self.rest.add(rows, codes)

    def remove(self, rows: Rows) -> None:
        """Those that are not there do no harm."""
        for part in self._parts():
            part.remove(rows)

    def keep(self, rows: Rows) -> None:
        """Remove all others."""
        for part in self._parts():
            part.remove(np.setdiff1d(part.rows, rows, assume_unique=True))

    def nearest(self, code: Codes, count: int, among: Rows | None = None) -> Rows:
        """The rows nearest by cosine, up to `count` of each part; `among` are the only ones that count."""
        return np.concatenate([part.nearest(code, count, among) for part in self._parts()])

    def take(self, graph: Graph) -> None:
        """A graph of more rows in place of this one."""
        self.graph = graph
        self.rest.remove(self.rest.rows[self.rest.rows <= graph.last])

    def _parts(self) -> Iterator[Graph | Scan]:
        if self.graph:
            yield self.graph
        yield self.rest


class Scan:
    def __init__(self, width: int, dtype: Dtype) -> None:
        self._empty: Codes = np.empty((0, width), dtype)
        self._blocks: list[tuple[Rows, Codes]] = []

    def __len__(self) -> int:
        return sum(len(rows) for rows, _ in self._blocks)

    @property
    def rows(self) -> Rows:
        return np.concatenate([np.empty(0, np.uint64), *(rows for rows, _ in self._blocks)])

    def add(self, rows: Rows, codes: Codes) -> None:
        if self._blocks and len(self._blocks[-1][0]) < BLOCK:
            old_rows, old_codes = self._blocks.pop()
            rows, codes = np.concatenate([old_rows, rows]), np.concatenate([old_codes, codes])
        for start in range(0, len(rows), BLOCK):
            part = slice(start, start + BLOCK)
            self._blocks.append((rows[part].copy(), codes[part].copy()))

    def remove(self, rows: Rows) -> None:
        if len(rows):
            left = [_sieved(block, ~np.isin(block[0], rows)) for block in self._blocks]
            self._blocks = [block for block in left if len(block[0])]

    def nearest(self, code: Codes, count: int, among: Rows | None = None) -> Rows:
        blocks: Iterable[tuple[Rows, Codes]] = self._blocks
        if among is not None:
            blocks = (_sieved(block, np.isin(block[0], among)) for block in blocks)
        return _compared(blocks, code, count)


class Graph:
    def __init__(self, width: int, dtype: Dtype, path: Path) -> None:
        """The one in that file, or an empty one."""
        self._path = path
        self._graph = _empty(width, dtype)
        if path.exists():
            try:
                self._graph.load(str(path))
            except (ValueError, RuntimeError):  # from another version of usearch: it is built again
                self._graph = _empty(width, dtype)

    def __len__(self) -> int:
        return len(self._graph)

    @property
    def rows(self) -> Rows:
        return np.asarray(self._graph.keys[:], np.uint64) if len(self) else np.empty(0, np.uint64)

    @property
    def last(self) -> int:
        """The highest row that it holds, 0 without any."""
        return int(self.rows.max(initial=0))

    def add(self, rows: Rows, codes: Codes) -> None:
        self._graph.add(rows, np.ascontiguousarray(codes))

    def remove(self, rows: Rows) -> None:
        if len(held := self._held(rows)):
            self._graph.remove(held)

    def nearest(self, code: Codes, count: int, among: Rows | None = None) -> Rows:
        """Without `among` by a walk; with it by a longer one that is sieved, or by comparing all that fit.

        To walk past a candidate takes as long as to compare a row, 2 us each (at 60 000 rows of 64 numbers
        and at 20 000 of 2 048 alike). So it walks only while that passes fewer rows than fit, and a filter
        takes three times what comparing all that fit does at the most. Where the fitting lie evenly, k of
        them are met among k * rows / fitting candidates.
        """
        if among is None:
            return self._walked(code, count)
        fitting = self._held(among)
        asked = count
        while len(fitting) and (asked := 2 * asked * -(-len(self) // len(fitting))) <= len(fitting):
            found = self._walked(code, asked)
            kept = found[np.isin(found, fitting)]
            if len(kept) >= count:
                return kept[:count]
        return _compared(self._blocks(fitting), code, count)

    def save(self) -> None:
        """Raises Unavailable; without it nothing is lost but time."""
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

    def _held(self, rows: Rows) -> Rows:
        return rows[np.asarray(self._graph.contains(rows), np.bool_)] if len(rows) else rows

    def _blocks(self, rows: Rows) -> Iterator[tuple[Rows, Codes]]:
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            yield part, np.stack(cast("tuple[Codes, ...]", self._graph.get(part)))


def _empty(width: int, dtype: Dtype) -> Index:
    return Index(ndim=width, metric=MetricKind.Cos, dtype=KINDS[dtype], expansion_search=EXPANSION)


def _sieved(block: tuple[Rows, Codes], left: npt.NDArray[np.bool_]) -> tuple[Rows, Codes]:
    return block if left.all() else (block[0][left], block[1][left])


def _compared(blocks: Iterable[tuple[Rows, Codes]], code: Codes, count: int) -> Rows:
    """The nearest of all, best first."""
    code = np.ascontiguousarray(code)
    rows, distances = [np.empty(0, np.uint64)], [np.empty(0, np.float32)]
    for numbers, codes in blocks:
        if len(numbers):
            found = search(
                np.ascontiguousarray(codes), code, min(count, len(numbers)), MetricKind.Cos, exact=True
            )
            rows.append(numbers[np.asarray(found.keys, np.int64)])
            distances.append(np.asarray(found.distances, np.float32))
    order = np.argsort(np.concatenate(distances), kind="stable")[:count]
    return np.concatenate(rows)[order]
