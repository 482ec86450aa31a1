"""What a soak promises beside what it saw."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from rich.table import Table


@dataclass
class Seen:
    """What came back."""

    statuses: Counter[int] = field(default_factory=Counter)
    good: Counter[int] = field(default_factory=Counter)
    """Items answered, by second since the start."""
    steady: set[int] = field(default_factory=set)
    """The seconds in which both replicas took requests."""
    reject_seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    lost: int = 0
    """Requests without any answer, asked a second time."""
    retried: int = 0
    kills: int = 0
    poison: Counter[int] = field(default_factory=Counter)


def table(seen: Seen, peak: float, seconds: float, memory: tuple[float, float]) -> tuple[Table, bool]:
    steady = [seen.good[second] for second in seen.steady if 5 <= second < seconds - 1]
    goodput = float(np.mean(steady)) / peak if steady else float("nan")
    rejects = float(np.percentile(seen.reject_seconds, 99)) * 1000 if seen.reject_seconds else float("nan")
    growth = memory[1] / memory[0]
    rows = [
        ("goodput while both replicas are up, of peak", ">= 95 %", f"{goodput:.0%}", goodput >= 0.95),
        ("p99 of a 429, in the client", "< 50 ms", f"{rejects:.0f} ms", rejects < 50),
        ("memory at the end, of the start", "<= 110 %", f"{growth:.0%}", growth <= 1.1),
        ("requests without an answer, after one retry", "0", str(seen.lost), seen.lost == 0),
        ("wrong vectors", "0", str(seen.wrong), seen.wrong == 0),
        ("defects (500)", "0", str(seen.statuses[500]), seen.statuses[500] == 0),
        ("poison answered with 4xx only", "all", str(dict(seen.poison)), seen.poison[500] == 0),
    ]
    shown = Table("promise", "wanted", "seen", "kept")
    for name, wanted, found, kept in rows:
        shown.add_row(name, wanted, found, "yes" if kept else "NO")
    shown.caption = (
        f"{seconds:g} s, {sum(seen.statuses.values()) / seconds:.0f} requests/s, peak {peak:.0f} items/s, "
        f"{dict(seen.statuses)}, {seen.kills} kills, {seen.retried} retried"
    )
    return shown, all(kept for *_, kept in rows)
