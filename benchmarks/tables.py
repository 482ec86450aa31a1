"""Rows as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from benchmarks.aims import Aim, cpu_aims, gpu_aims, serving_aims
from benchmarks.compare import OURS, Group, Line, groups
from benchmarks.rows import Row

_MARKS = {True: "[green]met[/green]", False: "[red]not met[/red]", None: "[dim]open[/dim]"}


def show(rows: Iterable[Row], console: Console) -> None:
    """A ratio table for each model and machine, then where the aims stand."""
    found = groups(rows)
    for group in found:
        console.print(ratios(group))
    for title, aims in (
        ("on CPU", cpu_aims(found)),
        ("on CPU, with a model that costs next to nothing", serving_aims(found)),
        ("of a 2B on an H100", gpu_aims(found)),
    ):
        if aims:
            console.print(standing(title, aims))


def ratios(group: Group) -> Table:
    table = Table(title=group.title, title_justify="left")
    for name in ("workload", "mode", f"{OURS} items/s", "p50 ms", "API ms/item"):
        table.add_column(name, justify="left" if name in ("workload", "mode") else "right")
    for name in group.names:
        table.add_column(f"× {name}", justify="right")
        table.add_column("its API ms", justify="right")
    for line in group.lines:
        table.add_row(*_cells(line, group.names))
    runs = dict.fromkeys(f"{line.own.commit} {line.own.date[:16]}" for line in group.lines)
    table.caption = (
        "× is qvl's items per second over the contestant's; API ms is CPU without the engine's; "
        f"{_waking(group)}{_memory(group)}of {', '.join(runs)}"
    )
    return table


def _waking(group: Group) -> str:
    told = [line.own.waking for line in group.lines if line.own.waking]
    return f"work after a sleep costs {max(told):.1f} × its CPU here; " if told else ""


def _memory(group: Group) -> str:
    """Of qvl's processes beside the others'."""
    found = []
    for name in group.names:
        sides = [(line.own, line.others[name]) for line in group.lines if name in line.others]
        ratios = [a.peak_mem_gb / b.peak_mem_gb for a, b in sides if a.peak_mem_gb and b.peak_mem_gb]
        if ratios:
            found.append(f"{min(ratios):.2f} to {max(ratios):.2f} of {name}'s")
    return f"host memory {', '.join(found)}; " if found else ""


def standing(title: str, aims: Iterable[Aim]) -> Table:
    table = Table(title=f"Aims {title}", title_justify="left")
    for name in ("aim", "", "measured"):
        table.add_column(name)
    for aim in aims:
        table.add_row(aim.text, _MARKS[aim.met], aim.found)
    return table


def _cells(line: Line, names: list[str]) -> list[str]:
    own = line.own
    cells = [line.title, own.mode, _void(own, f"{own.items_per_s:.1f}"), _number(own.p50_ms), _milli(own)]
    for name in names:
        other = line.others.get(name)
        ratio = line.faster(name)
        if other is None:
            cells += ["", ""]
        else:
            cells += [_void(other, f"{ratio:.2f}" if ratio is not None else "-"), _milli(other)]
    return cells


def _void(row: Row, text: str) -> str:
    return f"[red]{text} void[/red]" if row.void else text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _milli(row: Row) -> str:
    return "" if row.cpu_s_per_item is None else f"{1000 * row.cpu_s_per_item:.2f}"
