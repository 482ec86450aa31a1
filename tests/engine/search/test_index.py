"""What is put is found, in both kinds of index; what is put twice is there once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from qvl.engine.dialects.search import conditions
from qvl.engine.errors import BadRequest, ConfigError, Unavailable
from qvl.engine.port import DIED
from qvl.engine.protocol import Condition
from qvl.engine.search.embedded import Embedded
from qvl.engine.search.index import Index, IndexMismatch
from tests.engine.conftest import Run
from tests.engine.search.conftest import WIDTH, entry, layout, unit_rows
from tests.ports import free_port


def test_the_most_similar_come_first_with_all_that_was_put(index: Index) -> None:
    rows = unit_rows(300)
    index.prepare(layout())
    index.put([entry(i, place=i) for i in range(300)], rows)
    for query in unit_rows(5, seed=1):
        cosines = rows @ query
        hits = index.find(query, 20, ())
        assert [hit.id for hit in hits] == [f"d{i}" for i in np.argsort(-cosines)[:20]]
        np.testing.assert_allclose([hit.similarity for hit in hits], np.sort(cosines)[::-1][:20], atol=1e-5)
        assert hits[0].item == b'"item %d"' % hits[0].metadata["place"]
    assert len(index) == 300


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32"])
@pytest.mark.parametrize("prefix", [16, WIDTH])
def test_rounded_and_shortened_vectors_find_nearly_the_same(index: Index, dtype: Any, prefix: int) -> None:
    rows = unit_rows(500) * 0.9 ** np.arange(WIDTH, dtype=np.float32)  # the first numbers say the most
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index.prepare(layout(dtype=dtype, prefix=prefix))
    index.put([entry(i) for i in range(500)], rows)
    found = total = 0
    for query in rows[:30] + 0.1 * unit_rows(30, seed=2):
        unit = query / np.linalg.norm(query)
        hits = index.find(unit, 10, ())
        best = set(np.argsort(-(rows @ unit))[:10].tolist())
        found += len(best & {int(hit.id[1:]) for hit in hits})
        total += 10
        wrong = max(abs(hit.similarity - rows[int(hit.id[1:])] @ unit) for hit in hits)
        assert wrong < 0.02  # the cosine is that of the whole vector, whatever recalled it
    assert found / total >= 0.95


def test_an_id_is_there_once(index: Index) -> None:
    rows = unit_rows(3)
    index.prepare(layout())
    index.put([entry(0, colour="red"), entry(1, colour="red")], rows[:2])
    assert index.known(["d0", "d1", "d2"]) == {"d0": "x0", "d1": "x1"}
    index.put([entry(0, colour="blue")], rows[2:])
    assert len(index) == 2
    assert [hit.id for hit in index.find(rows[2], 1, ())] == ["d0"]
    assert [hit.id for hit in index.find(rows[0], 9, conditions({"colour": "red"}))] == ["d1"]


def test_what_is_taken_out_is_gone(index: Index) -> None:
    rows = unit_rows(5)
    assert index.remove(["d1"]) == 0
    index.prepare(layout())
    index.put([entry(i, even=i % 2 == 0) for i in range(5)], rows)
    assert index.remove(["d1", "d2", "nobody", "d2"]) == 2
    assert {hit.id for hit in index.find(rows[1], 9, ())} == {"d0", "d3", "d4"}
    assert {hit.id for hit in index.find(rows[1], 9, conditions({"even": True}))} == {"d0", "d4"}
    assert (len(index), index.known(["d1"])) == (3, {})
    index.put([entry(1)], rows[1:2])
    assert [hit.id for hit in index.find(rows[1], 1, ())] == ["d1"]


def test_vectors_of_another_kind_are_refused(index: Index) -> None:
    index.prepare(layout())
    index.put([entry(0)], unit_rows(1))
    index.prepare(layout())
    with pytest.raises(IndexMismatch, match="made with dtype 'float32', now 'int8'"):
        index.prepare(layout(dtype="int8"))
    index.clear()
    assert (index.layout, len(index)) == (None, 0)
    assert index.find(unit_rows(1)[0], 5, ()) == []
    index.prepare(layout(dtype="int8"))
    index.put([entry(7)], unit_rows(1))
    assert [hit.id for hit in index.find(unit_rows(1)[0], 5, ())] == ["d7"]


VALUES: list[Any] = [0, 1, 1.5, -3, True, False, "", "a", "it's", '"); DROP TABLE entries; --', "1", "true"]
RULE = some.one_of(
    some.sampled_from(VALUES),
    some.lists(some.sampled_from(VALUES), min_size=1, max_size=4),
    some.fixed_dictionaries(
        {"gte": some.sampled_from([-3, 0, 1, 1.5])}, optional={"lt": some.sampled_from([1, 2.5])}
    ),
)
FIELDS = some.dictionaries(some.sampled_from(["a", "b", "c-d"]), RULE, min_size=1, max_size=3)


def held(value: Any, rule: Condition) -> bool:
    """What a filter means, in Python."""
    for each in value if isinstance(value, list) else [value]:
        if rule.values:
            if any(type_of(each) == type_of(wanted) and each == wanted for wanted in rule.values):
                return True
        elif type_of(each) == "number" and each >= rule.gte and (rule.lt is None or each < rule.lt):
            return True
    return False


def type_of(value: Any) -> str:
    return "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def test_filters_mean_the_same_in_both(index: Index) -> None:
    rng = np.random.default_rng(4)
    choices: list[Any] = [*VALUES, ["a", 1], [True, "it's"], []]
    metadata = [{key: choices[rng.integers(len(choices))] for key in ("a", "b", "c-d")} for _ in range(80)]
    rows = unit_rows(80)
    index.prepare(layout())
    index.put([entry(i, **fields) for i, fields in enumerate(metadata)], rows)

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(rules=FIELDS)
    def run(rules: dict[str, Any]) -> None:
        where = conditions(rules)
        hits = index.find(rows[0], 80, where)
        fits = {i for i in range(80) if all(held(metadata[i][each.key], each) for each in where)}
        assert {int(hit.id[1:]) for hit in hits} == fits, rules

    run()
    assert len(index) == 80


def test_dates_have_an_order(index: Index) -> None:
    dates: list[Any] = [
        "2023-12-31",
        "2024-01-01",
        "2024-05-01T10:00:00Z",
        "2025-01-01",
        2024,
        ["2024-02-01"],
    ]
    rows = unit_rows(len(dates))
    index.prepare(layout())
    index.put([entry(i, day=date) for i, date in enumerate(dates)], rows)

    def fitting(**bounds: str) -> set[str]:
        return {hit.id for hit in index.find(rows[0], 9, conditions({"day": bounds}))}

    assert fitting(gte="2024-01-01", lt="2025-01-01") == {"d1", "d2", "d5"}
    assert fitting(gt="2024-01-01") == {"d2", "d3", "d5"}
    assert fitting(lte="2023-12-31") == {"d0"}


def test_texts_that_are_no_dates_are_in_order_or_refused(index: Index) -> None:
    index.prepare(layout())
    index.put([entry(0, name="beta"), entry(1, name="")], unit_rows(2))
    where = conditions({"name": {"gt": "alpha"}})
    if isinstance(index, Embedded):
        assert [hit.id for hit in index.find(unit_rows(1)[0], 9, where)] == ["d0"]
    else:
        with pytest.raises(BadRequest, match=r"filter.name: .*bounds for numbers and for dates"):
            index.find(unit_rows(1)[0], 9, where)


def test_nothing_fits(index: Index) -> None:
    index.prepare(layout())
    index.put([entry(0, a=1)], unit_rows(1))
    assert index.find(unit_rows(1)[0], 5, conditions({"nobody": 1})) == []


def test_an_index_that_is_not_there(tmp_path: Any) -> None:
    from qvl.engine.search.open import open_index

    with pytest.raises(ConfigError, match="there is no index at"):
        open_index(str(tmp_path / "nothing"))
    (tmp_path / "items.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(ConfigError, match=r"cannot be used \(file is not a database\); take another folder"):
        open_index(str(tmp_path))
    with pytest.raises(ConfigError, match=r"cannot be used \(Not a directory\)"):
        open_index(str(tmp_path / "items.sqlite" / "below"), make=True)
    with pytest.raises(Unavailable, match="Qdrant does not answer"):
        open_index("http://127.0.0.1:9/x")
    with pytest.raises(ConfigError, match="HOST:PORT/COLLECTION"):
        open_index("http://127.0.0.1:9/x/y")


def test_an_index_that_another_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is no mistake of a setting when that takes too long: the server may be started again."""
    Embedded(tmp_path, make=True).close()
    monkeypatch.setattr("qvl.engine.search.tables.BUSY_SECONDS", 0.01)
    with closing(sqlite3.connect(tmp_path / "items.sqlite", isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=DELETE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match="is in use: database is locked"):
            Embedded(tmp_path)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize(
    ("where", "code", "said"),
    [
        ("here", 2, "cannot be used (file is not a database)"),
        ("http://127.0.0.1:9/x", 3, "Qdrant does not answer"),
    ],
)
def test_a_server_without_its_index_ends(
    qvl: Run, tmp_path: Path, where: str, code: int, said: str, replicas: int
) -> None:
    """Before it loads a model; with 3 whoever supervises it starts it again."""
    index = tmp_path if where == "here" else where
    (tmp_path / "items.sqlite").write_bytes(b"something else" * 100)
    options = ("--index", index, "--replicas", replicas, "--port", free_port())
    told = qvl("serve", "--embedder", "x", *options, code=code)
    assert said in told
    # What may pass is tried three times by one of two replicas, twice by the other.
    lines = [line for line in told.splitlines() if "settings that are not the default" not in line]
    assert len(lines) == (5 if code == DIED and replicas > 1 else 1), told
