"""A row of the grid: one shortcut on one task, and which of them are under their floor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from rich.table import Table

from benchmarks.asks import Role
from benchmarks.quality.variants import SERVED, STORED, Floor

FLOORS: dict[str, Floor] = {each.name: each.floor for each in (*SERVED, *STORED)}

USEFUL = 0.6
"""nDCG@10 of a reranker that has learnt something; one right of twenty gives 0.23 by chance. Below this there
is nothing to lose, and a floor would be on noise."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    hardware: str
    versions: dict[str, str]
    commit: str
    date: str
    model: str
    role: Role
    variant: str
    task: str
    queries: int
    documents: int
    """Candidates of a query."""
    ndcg: float
    reference_ndcg: float
    """Of the Hugging Face code in float32."""
    recall_1: float
    recall_10: float
    correlation: float
    least_cosine: float | None = None
    """Of a vector with the reference's; none for vectors that were made smaller."""
    score_error: float | None = None
    """The reranker's largest, of scores in (0, 1)."""
    score_spread: tuple[float, float] | None = None
    """The reranker's 2nd and 98th percentile, of 20 candidates of which one fits: both near a half, or one of
    them at 0.5 and the other at 1, is a head or a template that is broken."""


def under(rows: Sequence[Row]) -> str:
    """Why these rows of one shortcut and role are under its floor, or nothing."""
    floor = FLOORS[rows[0].variant]
    lost, least = loss(rows), min(row.correlation for row in rows)
    wanted = floor.correlation if rows[0].role == "embedder" else floor.scores
    reasons = []
    ranks = rows[0].role == "embedder" or np.mean([row.reference_ndcg for row in rows]) >= USEFUL
    if ranks and not lost <= floor.loss:
        reasons.append(f"nDCG@10 lost {lost:.3f}, {floor.loss:g} is allowed")
    if not least >= wanted:
        reasons.append(f"correlation {least:.4f}, {wanted:g} is the least")
    return "; ".join(reasons)


def loss(rows: Sequence[Row]) -> float:
    """nDCG@10, mean over the tasks."""
    return float(np.mean([row.reference_ndcg - row.ndcg for row in rows]))


def grouped(rows: Iterable[Row]) -> dict[tuple[Role, str], list[Row]]:
    groups: dict[tuple[Role, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.role, row.variant), []).append(row)
    return groups


def table(rows: Sequence[Row], role: Role) -> Table:
    """nDCG@10 of every task, then what the floors are on."""
    mine = [row for row in rows if row.role == role]
    tasks = {row.task: row.reference_ndcg for row in mine}
    made = Table(title=f"{role}: {mine[0].model}, nDCG@10", title_justify="left")
    made.add_column("")
    for name in (
        *tasks,
        "lost",
        "correlation",
        "least cosine" if role == "embedder" else "score error",
        "floor",
    ):
        made.add_column(name, justify="right")
    made.add_row("reference, float32", *(f"{each:.3f}" for each in tasks.values()), end_section=True)
    for (_, variant), group in grouped(mine).items():
        own = {row.task: row for row in group}
        made.add_row(
            variant,
            *(f"{own[name].ndcg:.3f}" if name in own else "" for name in tasks),
            f"{loss(group):+.4f}",
            f"{min(row.correlation for row in group):.5f}",
            _distance(group),
            "[red]under[/red]" if under(group) else "held",
        )
    return made


def _distance(rows: Sequence[Row]) -> str:
    cosines = [row.least_cosine for row in rows if row.least_cosine is not None]
    errors = [row.score_error for row in rows if row.score_error is not None]
    return f"{min(cosines):.6f}" if cosines else f"{max(errors):.4f}" if errors else ""
