"""A soak's row survives its file, and its table says which promise was broken."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from benchmarks import promises
from benchmarks.promises import Seen, Soaked, soaked


def row() -> Soaked:
    seen = Seen(
        statuses=Counter({200: 90, 429: 90}),
        good=Counter(dict.fromkeys(range(20), 10)),
        steady=set(range(20)),
        reject_seconds=[0.01] * 90,
        kills=2,
        restart_seconds=[8.0, 12.0],
        poison=Counter({415: 3}),
    )
    memory = 100.0, 105.0
    return soaked(
        seen,
        generator="shares the cores",
        others_cpu=0.01,
        peak=10.0,
        seconds=20.0,
        replicas=2,
        memory=memory,
    )


def test_a_row_survives_its_file_and_the_last_of_a_machine_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promises, "RESULTS", tmp_path)
    first, second = (msgspec.structs.replace(row(), date=f"2026-01-01T0{hour}:00:00") for hour in (1, 2))
    assert promises.append(second) == promises.append(first) == tmp_path / "2026-01-01.jsonl"
    assert promises.latest(tmp_path.glob("*.jsonl")) == [second]


def test_the_table_is_markdown() -> None:
    out = io.StringIO()
    Console(file=out, width=150).print(promises.table(row()))
    (goodput,) = [line for line in out.getvalue().splitlines() if "goodput" in line]
    cells = [cell.strip() for cell in goodput.strip().strip("|").split("|")]
    assert "all replicas up 100% of the time and 100% of the peak in all of it" in " ".join(
        out.getvalue().split()
    )
    assert cells == ["goodput at twice the capacity, of the peak", "≥ 95 %", "100%", "yes"]
    assert all(kept for *_, kept in promises.promises(row()))


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        ({"goodput": 0.9}, "goodput"),
        ({"goodput": None}, "goodput"),
        ({"reject_p99_ms": 51.0}, "p99"),
        ({"memory_end_mib": 111.0}, "memory"),
        ({"lost": 1}, "requests without"),
        ({"wrong": 1}, "wrong"),
        ({"statuses": {"200": 1, "500": 1}}, "defects"),
        ({"poison": {"200": 1}}, "poison"),
        ({"slow_host": {"504": 1}}, "images of a host"),
        ({"restart_max_s": None}, "engines killed"),
    ],
)
def test_a_broken_promise_is_told(broken: dict[str, object], promise: str) -> None:
    (found,) = [
        name for name, *_, kept in promises.promises(msgspec.structs.replace(row(), **broken)) if not kept
    ]
    assert found.startswith(promise)
