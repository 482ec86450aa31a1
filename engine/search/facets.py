"""Metadata as rows that SQLite can look up, one for each value. Callers' values are always parameters."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from qvl.engine.protocol import Condition, Scalar
from qvl.engine.search.near import Rows

Facet: TypeAlias = tuple[str, int, int | float | str]
BOOLEAN, NUMBER, TEXT = range(3)
BOUNDS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def of(metadata: Mapping[str, Any]) -> Iterator[Facet]:
    for key, value in metadata.items():
        for each in value if isinstance(value, list) else [value]:
            yield (key, *_typed(each))


def fitting(db: sqlite3.Connection, where: Sequence[Condition]) -> Rows:
    """The rows for which every condition holds."""
    clauses, parameters = zip(*map(_clause, where), strict=True)
    found = db.execute(" INTERSECT ".join(clauses), [each for some in parameters for each in some])
    return np.fromiter((row for (row,) in found), np.uint64)


def _clause(condition: Condition) -> tuple[str, list[Any]]:
    if condition.values:
        pairs = [part for value in condition.values for part in _typed(value)]
        marks = ", ".join(["(?, ?)"] * len(condition.values))
        # `(kind, value) IN` would look at all rows of that key and kind; this goes to those of the value.
        each = "key = ? AND kind = wanted.column1 AND value = wanted.column2"
        select = f"SELECT row FROM (VALUES {marks}) AS wanted CROSS JOIN facets ON {each}"
        return select, [*pairs, condition.key]
    bounds = {sign: getattr(condition, name) for name, sign in BOUNDS.items()}
    given = {sign: bound for sign, bound in bounds.items() if bound is not None}
    tests = "".join(f" AND value {sign} ?" for sign in given)
    kind = TEXT if any(isinstance(bound, str) for bound in given.values()) else NUMBER
    return f"SELECT row FROM facets WHERE key = ? AND kind = ?{tests}", [condition.key, kind, *given.values()]


def _typed(value: Scalar) -> tuple[int, int | float | str]:
    """1 and 1.0 are one value, true and "1" are others."""
    if isinstance(value, bool):
        return BOOLEAN, int(value)
    return (TEXT if isinstance(value, str) else NUMBER), value
