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

    def __init__(self) -> None:
        self.graph: Graph | None = None
        self.rest = Scan()

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
        """A graph of more rows in place of this one, and of all in the scan up to its last."""
        self.graph = graph
        self.rest.remove(self.rest.rows[self.rest.rows <= graph.last])

    def _parts(self) -> Iterator[Graph | Scan]:
        if self.graph:
            yield self.graph
        yield self.rest


class Scan:
    def __init__(self) -> None:
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
    """One in a file, which is mapped: to load it would hold the interpreter meanwhile, and all who read it
    share its pages (200 000 rows of 16 numbers are there after 0.1 s).

    It stays as it was when another file takes its place, and cannot be changed: rows that are taken out are
    passed over.
    """

    def __init__(self, width: int, dtype: Dtype, path: Path) -> None:
        """Without a file, and with one of another version of usearch, it is empty."""
        self._graph = empty(width, dtype)
        self._gone = np.empty(0, np.uint64)
        if path.exists():
            try:
                with path.open("rb") as file:  # or the first walks would wait for one page after the other
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
                self._graph.view(str(path))
            except (ValueError, RuntimeError, FileNotFoundError):
                self._graph = empty(width, dtype)
        self._keys = np.asarray(self._graph.keys[:], np.uint64) if len(self._graph) else self._gone

    def __len__(self) -> int:
        return len(self._keys) - len(self._gone)

    @property
    def rows(self) -> Rows:
        return self._keys[~_among(self._keys, self._gone)]

    @property
    def last(self) -> int:
        """The highest row that it holds, 0 without any."""
        return int(self.rows.max(initial=0))

    def remove(self, rows: Rows) -> None:
        self._gone = np.union1d(self._gone, self._held(rows))

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

    def _walked(self, code: Codes, count: int) -> Rows:
        """The nearest that are not gone; more are asked for until there are enough."""
        asked, kept = count, np.empty(0, np.uint64)
        while len(kept) < min(count, len(self)):
            found = self._graph.search(np.ascontiguousarray(code), min(asked, len(self._keys)))
            rows = np.asarray(found.keys, np.uint64)
            kept = rows[~_among(rows, self._gone)][:count]
            if asked >= len(self._keys):
                break
            asked *= 2
        return kept

    def _held(self, rows: Rows) -> Rows:
        if not len(rows):
            return rows
        return rows[np.asarray(self._graph.contains(rows), np.bool_) & ~_among(rows, self._gone)]

    def _blocks(self, rows: Rows) -> Iterator[tuple[Rows, Codes]]:
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            yield part, np.stack(cast("tuple[Codes, ...]", self._graph.get(part)))


def empty(width: int, dtype: Dtype) -> Index:
    return Index(ndim=width, metric=MetricKind.Cos, dtype=KINDS[dtype], expansion_search=EXPANSION)


def _among(rows: Rows, ordered: Rows) -> npt.NDArray[np.bool_]:
    """As np.isin, which would sort them both each time."""
    if not len(ordered):
        return np.zeros(len(rows), np.bool_)
    return np.equal(ordered.take(np.searchsorted(ordered, rows), mode="clip"), rows)


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
