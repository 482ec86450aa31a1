"""Indexes of both kinds, and entries to fill them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from qvl.engine.protocol import Condition
from qvl.engine.search import canary
from qvl.engine.search.embedded import Embedded
from qvl.engine.search.index import Entry, Index, Layout
from qvl.engine.search.qdrant import Qdrant
from tests.engine.conftest import lines_of

WIDTH = 32
Open = Callable[..., Embedded]


def entry(number: int, /, **metadata: object) -> Entry:
    return Entry(id=f"d{number}", digest=f"x{number}", item=b'"item %d"' % number, metadata=metadata)


def unit_rows(count: int, seed: int = 0, width: int = WIDTH) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def filled(folder: Open, count: int, **metadata: object) -> tuple[Embedded, np.ndarray]:
    writer, rows = folder(writable=True), unit_rows(count)
    writer.prepare(layout())
    writer.put([entry(i, **metadata) for i in range(count)], rows)
    return writer, rows


def found(index: Embedded, query: np.ndarray, count: int = 10, *where: Condition) -> list[int]:
    return [int(hit.id[1:]) for hit in index.find(query, count, where)]


def layout(**other: object) -> Layout:
    given = {"model": "m", "dimensions": WIDTH, "prefix": WIDTH, "dtype": "float32"}
    return Layout(**{**given, "canary": canary.written(unit_rows(1)[0]), **other})


class Local(QdrantClient):
    """Computes in this process: no server can be installed where the tests run. Keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.upserted: list[list[Any]] = []
        self.queries: list[Any] = []

    def upsert(self, collection_name: str, points: Any, **options: Any) -> Any:
        self.upserted.append(points)
        return super().upsert(collection_name, points, **options)

    def query_points(self, *given: Any, search_params: Any = None, **options: Any) -> Any:
        self.queries.append(search_params)  # they would do nothing here
        return super().query_points(*given, **options)


@pytest.fixture(params=["folder", "qdrant"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Index]:
    kinds: dict[str, Callable[[], Index]] = {
        "folder": lambda: Embedded(tmp_path / "index", writable=True),
        "qdrant": lambda: Qdrant(Local()),
    }
    made = kinds[request.param]()
    yield made
    made.close()


def told_of(index: Path) -> list[dict[str, Any]]:
    """What `qvl search add` says of bad lines."""
    return [line for path in index.glob("in.jsonl.*.errors.jsonl") for line in lines_of(path)]


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
