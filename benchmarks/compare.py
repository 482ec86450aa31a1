"""Rows of one measurement side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.rows import Row

OURS = "qvl"


@dataclass(frozen=True, slots=True)
class Line:
    """One workload in one mode at one load: our row and those of the others."""

    own: Row
    others: dict[str, Row]

    @property
    def title(self) -> str:
        return f"{self.own.workload} ×{self.own.concurrency}" if self.own.concurrency else self.own.workload

    def faster(self, name: str) -> float | None:
        """Our items per second over theirs; None when one of them does not count."""
        other = self.others.get(name)
        if other is None or other.void or self.own.void or not other.items_per_s:
            return None
        return self.own.items_per_s / other.items_per_s

    def told_apart(self, name: str, ratio: float = 1.0) -> bool:
        """Whether none of their turns, times `ratio`, is among ours; true where a row tells of no turns."""
        ours, theirs = self.own.turns, [ratio * each for each in self.others[name].turns]
        return not (ours and theirs) or min(ours) > max(theirs) or max(ours) < min(theirs)

    def cheaper(self, name: str) -> float | None:
        """Our API side's CPU seconds per item over theirs. A void row's costs count: the work was done."""
        other = self.others.get(name)
        if other is None or self.own.cpu_s_per_item is None or not other.cpu_s_per_item:
            return None
        return self.own.cpu_s_per_item / other.cpu_s_per_item


@dataclass(frozen=True, slots=True)
class Group:
    """The lines of one model on one machine."""

    title: str
    profile: str
    lines: list[Line]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for line in self.lines for name in line.others))


def groups(rows: Iterable[Row]) -> list[Group]:
    """In the order in which the rows were made; measurements that ours is missing from are left out."""
    found: dict[tuple[str, str], tuple[str, dict[tuple[str, str, int], dict[str, Row]]]] = {}
    for row in rows:
        place = (row.hardware, f"{row.model}, {row.dtype}")
        _, lines = found.setdefault(place, (row.profile, {}))
        lines.setdefault((row.mode, row.workload, row.concurrency), {})[row.contestant] = row
    made = []
    for (hardware, model), (profile, lines) in found.items():
        good = [
            Line(by_name[OURS], {name: row for name, row in by_name.items() if name != OURS})
            for by_name in lines.values()
            if OURS in by_name
        ]
        if good:
            made.append(Group(f"{model} on {hardware}", profile, good))
    return made


def line(lines: Sequence[Line], workload: str, concurrency: int | None = None) -> list[Line]:
    """The closed-loop lines of a workload."""
    return [
        each
        for each in lines
        if each.own.workload == workload
        and each.own.mode == "closed"
        and concurrency in (None, each.own.concurrency)
    ]
