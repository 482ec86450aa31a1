"""One model of a run: what all its rows have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import meter, rows, truth
from benchmarks.asks import Role
from benchmarks.contestants import Site
from benchmarks.contestants.base import Answer
from benchmarks.plan import Options
from benchmarks.processes import DidNotStart
from benchmarks.rows import Row
from benchmarks.truth import Truth
from benchmarks.workloads import Workload

Truths = dict[tuple[str, int], Truth]
"""The reference's answers by workload and number of the request."""

_ALIKE = 1.1


@dataclass(frozen=True)
class Scene:
    options: Options
    console: Console
    site: Site
    chosen: Sequence[Workload]
    logs: Path
    date: str
    missing: list[str] = field(default_factory=list)
    """Contestants, servers or offline engines, that are left out."""

    @property
    def role(self) -> Role:
        return self.site.role

    def row(
        self,
        workload: str,
        mode: str,
        contestant: str,
        *,
        items_per_s: float,
        answers: Sequence[Answer] = (),
        known: Sequence[Truth] = (),
        failed: str = "",
        concurrency: int = 0,
        **numbers: Any,
    ) -> Row:
        """Void when a request failed or an answer is wrong; `known` are the truths of `answers`."""
        limit = truth.allowed(self.options.dtype, self._width)
        error = truth.worst(answers, known)
        tokens = tokens_per_item(known)
        reasons = [*([failed] if failed else []), *truth.wrong(answers, known, limit)]
        row = Row(
            hardware=rows.hardware(self.site.gpu),
            versions=rows.versions(),
            commit=rows.commit(),
            date=self.date,
            profile=self.options.profile.name,
            model=self.site.checkpoint.name,
            dtype=self.options.dtype,
            workload=workload,
            mode=mode,
            concurrency=concurrency,
            contestant=contestant,
            items_per_s=items_per_s,
            tokens_per_s=None if tokens is None else items_per_s * tokens,
            max_error=error,
            allowed_error=None if error is None else limit,
            void="; ".join(reasons) or None,
            waking=meter.waking(),
            **numbers,
        )
        self._show(row)
        return row

    def left_out(self, name: str, error: DidNotStart) -> None:
        self.missing.append(name)
        self.console.print(f"[red]{name} is left out:[/red] {error}", highlight=False)
        if error.tail:
            self.console.print(error.tail, style="dim", markup=False, highlight=False)

    @property
    def _width(self) -> int | None:
        return self.site.checkpoint.dimensions if self.role == "embedder" else None

    def _show(self, row: Row) -> None:
        where = f"{row.mode} {row.concurrency}" if row.concurrency else row.mode
        line = f"{row.workload:28}{where:12}{row.contestant:18}{row.items_per_s:9.1f} items/s"
        if row.p50_ms is not None:
            late = "" if row.p99_ms is None else f"{row.p99_ms:.1f}"
            line += f"  p50 {row.p50_ms:8.1f} ms  p99 {late:>8} ms"
        if row.cpu_s_per_item is not None and row.cpu_s_per_item_engine is not None:
            api, engine = 1000 * row.cpu_s_per_item, 1000 * row.cpu_s_per_item_engine
            line += f"  CPU/item {api:7.2f} + {engine:8.2f} ms"
        if row.max_error is not None:
            line += f"  error {row.max_error:.0e}"
        self.console.print(line, highlight=False, soft_wrap=True)
        if row.void:
            self.console.print(f"  void: {row.void}", style="red", markup=False, highlight=False)


def tokens_per_item(known: Sequence[Truth]) -> float | None:
    """Of a few items; None where they differ so much that others will too."""
    counts = [count for each in known for count in each.tokens]
    return sum(counts) / len(counts) if counts and max(counts) <= _ALIKE * min(counts) else None
