"""The index in a folder: readers follow the writer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qvl.engine.dialects.search import conditions
from qvl.engine.errors import ConfigError, Unavailable
from qvl.engine.protocol import Condition
from qvl.engine.search import facets
from tests.engine.search.conftest import Open, entry, filled, found, layout, unit_rows


def test_a_reader_sees_what_was_put_since(folder: Open) -> None:
    rows = unit_rows(6)
    writer = folder(writable=True)
    reader = folder()
    assert found(reader, rows[0]) == []
    writer.prepare(layout())
    writer.put([entry(i) for i in range(3)], rows[:3])
    assert found(reader, rows[0], 1) == [0]
    writer.put([entry(0), entry(9)], rows[3:5])  # 0 has moved
    assert found(reader, rows[3], 1) == [0]
    assert reader.find(rows[0], 1, ())[0].similarity < 0.9
    writer.clear()
    assert found(reader, rows[0]) == []
    writer.prepare(layout(model="other", dtype="int8"))
    writer.put([entry(5)], rows[5:])
    assert found(reader, rows[5]) == [5]
    assert reader.layout == layout(model="other", dtype="int8")


def test_one_writes_at_a_time(folder: Open) -> None:
    first = folder(writable=True)
    with pytest.raises(ConfigError, match="another run is writing"):
        folder(writable=True)
    first.close()
    folder(writable=True)


def test_what_a_failed_put_did_is_undone(folder: Open) -> None:
    index = folder(writable=True)
    index.prepare(layout())
    with pytest.raises(ValueError, match="zip"):
        index.put([entry(0), entry(1), entry(2)], unit_rows(2))
    assert len(index) == 0
    assert found(index, unit_rows(1)[0]) == []


def test_searches_are_exact_while_another_writes(folder: Open) -> None:
    """Each sees what was committed before it, all of it and nothing else."""
    writer, rows = filled(folder, 400, kind="old")
    reader, moved = folder(), unit_rows(400, seed=3)
    query = unit_rows(1, seed=9)[0]
    live = dict(enumerate(rows))

    def best(fits: Callable[[int], bool]) -> list[int]:
        return sorted(filter(fits, live), key=lambda i: -float(live[i] @ query))[:20]

    assert found(reader, query, 20) == best(lambda _: True)
    for start in range(0, 400, 50):
        changed = range(start, start + 40)
        writer.put([entry(i, kind="new") for i in changed], moved[start : start + 40])
        live |= {i: moved[i] for i in changed}
        writer.remove([f"d{i}" for i in range(start + 40, start + 45)])
        for i in range(start + 40, start + 45):
            del live[i]
        assert found(reader, query, 20) == best(lambda _: True)
        new = set(range(400)) - {i for i in range(400) if i >= start + 50 or i % 50 >= 40}
        assert found(reader, query, 20, Condition(key="kind", values=("new",))) == best(new.__contains__)


@pytest.mark.parametrize("rule", ["a", ["a", 1], {"gte": 3}])
def test_a_filter_looks_at_no_rows_of_other_values(folder: Open, rule: Any) -> None:
    [condition] = conditions({"colour": rule})
    statement, parameters = facets._clause(condition)
    plan = folder(writable=True)._db.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
    assert any("PRIMARY KEY (key=? AND kind=? AND value" in step for *_, step in plan), plan


def test_a_full_disk_is_named_and_what_was_there_stays(folder: Open) -> None:
    writer = folder(writable=True)
    writer.prepare(layout())
    writer.put([entry(0)], unit_rows(1))
    [(pages,)] = writer._db.execute("PRAGMA page_count")
    writer._db.execute(f"PRAGMA max_page_count={pages + 2}")
    many = [entry(i) for i in range(1, 500)]
    with pytest.raises(Unavailable, match="database or disk is full"):
        writer.put(many, unit_rows(499))
    assert len(writer) == 1
    writer._db.execute("PRAGMA max_page_count=1000000")
    writer.put(many, unit_rows(499))
    assert len(writer) == 500
