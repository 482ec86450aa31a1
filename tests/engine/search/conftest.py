"""Indexes of both kinds, and entries to fill them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient

from qvl.engine.search.embedded import Embedded
from qvl.engine.search.index import Entry, Index, Layout
from qvl.engine.search.qdrant import Qdrant

WIDTH = 32


def layout(**other: object) -> Layout:
    return Layout(**{"model": "m", "dimensions": WIDTH, "prefix": WIDTH, "dtype": "float32", **other})


def entry(number: int, /, **metadata: object) -> Entry:
    return Entry(id=f"d{number}", digest=f"x{number}", item=b'"item %d"' % number, metadata=metadata)


def unit_rows(count: int, seed: int = 0, width: int = WIDTH) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(params=["folder", "qdrant"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Index]:
    """Qdrant's client computes in this process here: no server can be installed where the tests run."""
    made: Index
    if request.param == "folder":
        made = Embedded(tmp_path / "index", writable=True)
    else:
        made = Qdrant(QdrantClient(":memory:"))
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Callable[..., Embedded]]:
    """`folder(writable=True)` opens the same folder again and again."""
    opened: list[Embedded] = []

    def open_it(**options: object) -> Embedded:
        opened.append(Embedded(tmp_path / "index", **options))
        return opened[-1]

    yield open_it
    for each in opened:
        each.close()
