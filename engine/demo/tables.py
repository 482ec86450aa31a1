"""The demo's answers as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from qvl.engine.demo.corpus import Entry
from qvl.engine.demo.search import Found, Share

SHOWN = 3


def question(entries: Sequence[Entry], found: Found) -> Table:
    """The first few in the last stage's order; ✓ marks the one that fits, where that is known."""
    asked = found.asked
    table = _table(
        f"Query: {escape(asked.title)}\n{escape(asked.instruction)}", "found", "cosine", "by vectors"
    )
    if asked.picture is None:
        table.add_column("reranked", justify="right")
    for hit in found.ranked[:SHOWN]:
        entry = entries[hit.entry]
        mark = "[green]✓[/] " if hit.entry == asked.answer else ""
        cells = [f"{mark}{entry.kind:5}  {escape(entry.title)}", f"{hit.cosine:.3f}"]
        cells.append(f"{found.place(hit) + 1}")
        table.add_row(*cells, *([f"{hit.score:.3f}"] if asked.picture is None else []))
    return table


def shares(shares: Sequence[Share]) -> Table:
    table = _table("The right one came first", "question", "asked", "by vectors", "reranked")
    for each in shares:
        table.add_row(each.kind, str(each.questions), str(each.before), str(each.after))
    return table


def timings(timings: dict[str, float]) -> Table:
    table = _table("What took how long", "stage", "seconds")
    for stage, seconds in timings.items():
        table.add_row(stage, f"{seconds:.2f}")
    return table


def _table(title: str, first: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right")
    return table
