"""The rows in memory: all are compared, whatever came and went."""

from __future__ import annotations

import numpy as np
import pytest

from qvl.engine.errors import Unavailable
from qvl.engine.response import convert
from qvl.engine.search import near, tables
from qvl.engine.search.index import Dtype
from qvl.engine.search.near import Near
from tests.engine.search.conftest import Open, entry, filled, found, unit_rows


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32"])
def test_what_is_left_is_compared(dtype: Dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after rows took the places of others, and with filters of several blocks."""
    monkeypatch.setattr(near, "BLOCK", 16)
    rng, width = np.random.default_rng(5), 24
    codes = convert(unit_rows(600, width=width), dtype)
    exact = codes.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    scan, live = Near(width, dtype), np.empty(0, np.uint64)

    def check(among: np.ndarray | None = None) -> None:
        fitting = live if among is None else np.intersect1d(live, among)
        seen = scan.nearest(codes[0], 20, among)
        cosines = exact @ exact[0]
        best = np.sort(cosines[fitting.astype(int)])[::-1][:20]
        assert set(seen) <= set(fitting)
        np.testing.assert_allclose(cosines[seen.astype(int)], best, atol=1e-3 if dtype == "float16" else 1e-5)

    check()
    for start in range(0, 600, 30):
        new = np.arange(start, start + 30, dtype=np.uint64)
        scan.add(new, codes[start : start + 30])
        gone = rng.choice(600, 40, replace=False).astype(np.uint64)  # those that are not there too
        scan.remove(gone)
        live = np.setdiff1d(np.concatenate([live, new]), gone)
        assert len(scan) == len(live)
        assert sorted(scan.rows) == live.tolist()
        check()
        check(rng.choice(600, 300, replace=False).astype(np.uint64))
    scan.keep(live[::3])
    live = live[::3]
    check()
    scan.keep(live[:0])
    live = live[:0]
    check()
    check(np.arange(600, dtype=np.uint64))


def test_what_is_loaded_is_not_read_again(folder: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = folder(make=True)
    reader.load()  # it is empty
    _, rows = filled(folder, 300)
    reader.load()
    monkeypatch.delattr(tables, "vectors_after")
    assert found(reader, rows[7], 1) == [7]


def test_rows_that_are_gone_are_not_remembered_for_ever(
    folder: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "KEPT", 5)
    writer, rows = filled(folder, 300)
    reader = folder()
    assert found(reader, rows[0], 1) == [0]
    for seed in range(1, 4):
        writer.put([entry(i) for i in range(20)], unit_rows(20, seed=seed))
    assert writer._db.execute("SELECT count(*) FROM gone").fetchone() == (5,)
    live = [row for (row,) in writer._db.execute("SELECT row FROM entries ORDER BY row")]
    for each in (reader, folder()):
        assert found(each, unit_rows(1, seed=3)[0], 1) == [0]
        assert each._view._near is not None
        assert sorted(each._view._near.rows) == live


def test_who_closes_ends_the_loading(folder: Open) -> None:
    _, rows = filled(folder, 300)
    reader = folder()
    reader._closed.set()  # as `close` does, which waits for the lock then
    with pytest.raises(Unavailable, match="is being closed"):
        found(reader, rows[0])
