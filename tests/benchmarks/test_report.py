"""Rows survive their file; tables, aims and figures are made of those that count."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from benchmarks import figures, rows, tables
from benchmarks.__main__ import told
from benchmarks.aims import cpu_aims, gpu_aims, serving_aims
from benchmarks.compare import groups
from benchmarks.rows import Row

KEYS = (
    "hardware versions commit date workload mode concurrency contestant items_per_s tokens_per_s p50_ms "
    "p90_ms p99_ms gpu_busy cpu_s_per_item peak_mem_gb max_error"
)


def row(contestant: str, workload: str = "short", **changes: Any) -> Row:
    fields: dict[str, Any] = {
        "hardware": "two cores",
        "versions": {"vllm": "0.32.0"},
        "commit": "abc",
        "date": "2026-01-01T00:00:00+00:00",
        "profile": "cpu",
        "model": "tiny",
        "dtype": "float32",
        "mode": "closed",
        "concurrency": 8,
        "items_per_s": 100.0,
        "p50_ms": 10.0,
        "cpu_s_per_item": 0.001,
    }
    return Row(**{**fields, "workload": workload, "contestant": contestant, **changes})


def pair_of(workload: str = "short", *, own: float, other: float, **changes: Any) -> list[Row]:
    return [
        row("qvl", workload, items_per_s=own, **changes),
        row("vllm-tuned", workload, items_per_s=other, **changes),
    ]


def test_a_row_has_the_keys_and_survives_its_file(tmp_path: Path) -> None:
    assert set(KEYS.split()) <= set(Row.__struct_fields__)
    path = tmp_path / "results" / "cpu.jsonl"
    rows.append(path, [row("qvl")])
    rows.append(path, [row("vllm-default", max_error=float("1e-7"))])
    assert rows.read([path], Row) == [row("qvl"), row("vllm-default", max_error=1e-7)]


LATER = "2026-02-01T00:00:00+00:00"


def test_the_last_run_of_a_measurement_counts() -> None:
    old = row("qvl", items_per_s=1.0)
    new = row("qvl", items_per_s=2.0, date=LATER)
    other = row("qvl", concurrency=64)
    assert rows.latest([new, old, other]) == [new, other]


def test_rows_of_two_runs_are_never_beside_each_other() -> None:
    old, new = pair_of(own=300, other=100), pair_of(own=200, other=100, date=LATER)
    assert rows.latest([*old, row("qvl", items_per_s=600.0, date=LATER)]) == old
    assert rows.latest([*new, *old]) == new
    assert rows.latest([*old, row("vllm-default", items_per_s=1.0, date=LATER)]) == old


def test_a_run_of_another_dtype_replaces_nothing() -> None:
    exact, rounded = pair_of(own=300, other=100), pair_of(own=500, other=100, dtype="fp8", date=LATER)
    assert rows.latest([*exact, *rounded]) == [*exact, *rounded]


def test_this_machine_describes_itself() -> None:
    assert rows.versions()["python"]
    assert rows.commit()
    assert "cores" in rows.hardware(False)


def test_ratios() -> None:
    [group] = groups([*pair_of(own=300, other=100), row("vllm-default", void="wrong"), row("reference")])
    [line] = group.lines
    assert line.faster("vllm-tuned") == 3.0
    assert line.faster("vllm-default") is None
    assert line.cheaper("vllm-tuned") == 1.0
    assert line.faster("nobody") is None
    assert group.names == ["vllm-tuned", "vllm-default", "reference"]


def test_a_measurement_without_ours_has_no_line() -> None:
    assert groups([row("vllm-tuned")]) == []


def standing(found: list[Row]) -> dict[str, bool | None]:
    return {aim.text: aim.met for aim in cpu_aims(groups(found))}


@pytest.mark.parametrize(("own", "met"), [(0.3, True), (0.6, False)])
def test_the_aim_on_short_text_compares_cpu_seconds(own: float, met: bool) -> None:
    found = [row("qvl", cpu_s_per_item=own), row("vllm-tuned", cpu_s_per_item=1.0)]
    aims = standing(found)
    assert aims["API side's CPU s per item ≤ 1/2 of stock on short text"] is met
    assert aims["API side's CPU s per item ≤ 1/3 of stock on unique 1024² JPEGs"] is None


def test_an_aim_holds_against_every_stock_contestant() -> None:
    met = pair_of(own=140, other=100)
    text = "items per s: ≥ 1.3 × stock on short text"
    assert standing(met)[text] is True
    assert standing([*met, row("vllm-default", items_per_s=120.0)])[text] is False
    assert standing([*met, row("reference", items_per_s=500.0)])[text] is True


@pytest.mark.parametrize(
    ("least", "own", "met"), [(1.3, 140, True), (1.3, 100, False), (1.3, 120, None), (1.0, 101, None)]
)
def test_an_aim_is_open_where_turns_overlap(least: float, own: float, met: bool | None) -> None:
    """Stock's turns at 90 and 110 times 1.3: from 117 to 143."""
    found = [
        row("qvl", items_per_s=own, turns=(own - 1, own + 1) if own != 140 else (144.0, 146.0)),
        row("vllm-tuned", turns=(90.0, 110.0)),
    ]
    text = "items per s: ≥ 1.3 × stock on short text" if least > 1 else "items per s: never below stock"
    assert standing(found)[text] is met


def test_flat_is_from_one_to_64() -> None:
    costs = {1: 0.001, 64: 0.003}
    found = [
        row(name, concurrency=count, cpu_s_per_item=cost)
        for count, cost in costs.items()
        for name in ("qvl", "vllm-tuned")
    ]
    text = "API side's CPU s per item flat from 1 to 64 in flight, short"
    assert standing(found)[text] is False
    assert standing(found[:2])[text] is None


def test_gpu_rows_have_aims_of_their_own() -> None:
    found = groups(pair_of(own=3100, other=100, profile="gpu", model="2b-embed", dtype="bfloat16"))
    assert cpu_aims(found) == []
    aims = {aim.text: aim.met for aim in gpu_aims(found)}
    assert aims["short, bfloat16: ≥ 3,000 items/s"] is True
    assert aims["items per s: never below stock"] is True
    assert aims["p50 no worse than stock's at equal load"] is True
    assert gpu_aims(groups(pair_of(own=2, other=1, profile="gpu", model="8b-embed"))) == []


def test_the_serving_set_has_the_rates_alone() -> None:
    found = groups(pair_of(own=140, other=100, profile="serving", model="thin"))
    assert cpu_aims(found) == gpu_aims(found) == []
    assert {aim.text: aim.met for aim in serving_aims(found)} == {
        "items per s: never below stock": True,
        "items per s: ≥ 1.3 × stock on short text": True,
        "items per s: ≥ 1.3 × stock on 224² images": None,
    }


def test_a_gpu_s_aim_may_be_of_tokens_and_higher_in_fp8() -> None:
    numbers = {"profile": "gpu", "model": "2b-embed", "workload": "passages", "tokens_per_s": 200_000.0}
    for dtype, met in (("bfloat16", True), ("fp8_per_channel", False)):
        [aim, *_] = gpu_aims(groups([row("qvl", dtype=dtype, **numbers)]))
        assert aim.met is met


def test_tables_show_ratios_and_voids() -> None:
    out = io.StringIO()
    found = [*pair_of(own=300, other=100), row("vllm-default", void="wrong answers", peak_mem_gb=4.0)]
    found[0] = msgspec.structs.replace(found[0], peak_mem_gb=5.0, waking=36.6)
    tables.show(found, Console(file=out, width=200))
    assert "3.00" in out.getvalue()
    assert "void" in out.getvalue()
    assert "Aims on CPU" in out.getvalue()
    assert (
        "work after a sleep costs 36.6 × its CPU here; host memory 1.25 to 1.25 of vllm-default's; "
        in " ".join(out.getvalue().split())
    )


@pytest.mark.parametrize(
    ("made", "missing", "code"),
    [
        (pair_of(own=2, other=1), [], 0),
        (pair_of(own=2, other=1), ["vllm-default"], 1),
        ([*pair_of(own=2, other=1), row("vllm-default", void="wrong answers")], [], 1),
        ([], [], 1),
    ],
)
def test_what_went_wrong_is_in_the_exit_code(made: list[Row], missing: list[str], code: int) -> None:
    assert told(made, missing, Path("here.jsonl")) == code


def test_figures_are_svg_of_what_counts(tmp_path: Path) -> None:
    found = [
        *pair_of(own=300, other=100),
        *pair_of("photos", own=5, other=4),
        row("vllm-default", void="wrong"),
        *pair_of("video", own=5, other=4, void="wrong"),
    ]
    [path] = figures.draw(found, tmp_path)
    root = ET.parse(path).getroot()
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"short ×8", "photos ×8", "300/s", "qvl", "vllm-tuned"} <= set(texts)
    assert "video ×8" not in texts
    assert figures.draw([], tmp_path) == []
