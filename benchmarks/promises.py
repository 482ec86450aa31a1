"""What is promised under load, beside what a soak saw: its row, and the table made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from rich import box
from rich.table import Table

from benchmarks import rows

RESULTS = rows.RESULTS / "soak"
_SETTLE_SECONDS = 5


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
    restart_seconds: list[float] = field(default_factory=list)
    """From a kill until both replicas took requests again."""
    poison: Counter[int] = field(default_factory=Counter)
    slow_host: Counter[int] = field(default_factory=Counter)


class Soaked(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    hardware: str
    versions: dict[str, str]
    commit: str
    date: str
    generator: str
    """How the load generator gets at the cores that it shares with the server."""
    others_cpu: float
    """Share of the machine that other programs took before the run; with much of it the row says little."""
    seconds: float
    replicas: int
    peak_items_per_s: float
    """The mean of before and after."""
    goodput: float | None
    """Items per second while all replicas took requests, of the peak; None: they never all did."""
    steady: float | None = None
    """Share of the time in which they all did; None in rows from before it was told."""
    whole: float | None = None
    """Items per second of all the time, restarts included, of the peak."""
    requests_per_s: float
    statuses: dict[str, int]
    reject_p50_ms: float | None
    reject_p99_ms: float | None
    memory_start_mib: float
    memory_end_mib: float
    lost: int
    retried: int
    wrong: int
    kills: int
    restart_p50_s: float | None
    restart_max_s: float | None
    poison: dict[str, int]
    slow_host: dict[str, int]


def soaked(
    seen: Seen,
    *,
    generator: str,
    others_cpu: float,
    peak: float,
    seconds: float,
    replicas: int,
    memory: tuple[float, float],
) -> Soaked:
    steady = [seen.good[second] for second in seen.steady if _SETTLE_SECONDS <= second < seconds - 1]
    return Soaked(
        hardware=rows.hardware(gpu=False),
        versions=rows.versions(),
        commit=rows.commit(),
        date=rows.now(),
        generator=generator,
        others_cpu=others_cpu,
        seconds=seconds,
        replicas=replicas,
        peak_items_per_s=peak,
        goodput=float(np.mean(steady)) / peak if steady else None,
        steady=len(seen.steady) / seconds,
        whole=seen.good.total() / seconds / peak,
        requests_per_s=sum(seen.statuses.values()) / seconds,
        statuses=_named(seen.statuses),
        reject_p50_ms=_percentile(seen.reject_seconds, 50, 1000),
        reject_p99_ms=_percentile(seen.reject_seconds, 99, 1000),
        memory_start_mib=memory[0],
        memory_end_mib=memory[1],
        lost=seen.lost,
        retried=seen.retried,
        wrong=seen.wrong,
        kills=seen.kills,
        restart_p50_s=_percentile(seen.restart_seconds, 50),
        restart_max_s=_percentile(seen.restart_seconds, 100),
        poison=_named(seen.poison),
        slow_host=_named(seen.slow_host),
    )


def append(row: Soaked) -> Path:
    path = RESULTS / f"{row.date[:10]}.jsonl"
    rows.append(path, [row])
    return path


def latest(paths: Iterable[Path]) -> list[Soaked]:
    """The last run of each machine."""
    found = sorted(rows.read(paths, Soaked), key=lambda row: row.date)
    return list({row.hardware: row for row in found}.values())


def promises(row: Soaked) -> list[tuple[str, str, str, bool]]:
    """What is promised, the bound, what was seen, whether it was kept."""
    growth = row.memory_end_mib / row.memory_start_mib
    goodput, rejects = row.goodput or 0.0, row.reject_p99_ms
    restarts = f"{row.restart_p50_s or 0:.0f} s, at most {row.restart_max_s or 0:.0f} s"
    kills = f"{row.kills}, ready again after {restarts}"
    return [
        ("goodput at twice the capacity, of the peak", "≥ 95 %", f"{goodput:.0%}", goodput >= 0.95),
        ("p99 of a 429, in the client", "< 50 ms", _number(rejects, "ms"), (rejects or 0) < 50),
        ("memory at the end, of the start", "≤ 110 %", f"{growth:.0%}", growth <= 1.1),
        ("requests without an answer, after one retry", "0", str(row.lost), row.lost == 0),
        ("wrong vectors", "0", str(row.wrong), row.wrong == 0),
        ("defects (500)", "0", str(row.statuses.get("500", 0)), "500" not in row.statuses),
        ("poisoned images", "4xx or 503", _counts(row.poison), _refused(row.poison)),
        ("images of a host that hangs", "4xx or 503", _counts(row.slow_host), _refused(row.slow_host)),
        ("engines killed with -9", "restarted", kills, not row.kills or row.restart_max_s is not None),
    ]


def table(row: Soaked) -> Table:
    """In Markdown, for the README."""
    shown = Table("promise", "wanted", "seen", "kept", box=box.MARKDOWN)
    for name, wanted, found, kept in promises(row):
        shown.add_row(name, wanted, found, "yes" if kept else "NO")
    shown.caption = (
        f"{row.hardware}; {row.replicas} replicas, {row.seconds:g} s, {row.requests_per_s:.0f} requests/s, "
        f"peak {row.peak_items_per_s:.0f} items/s{_whole(row)}, {_counts(row.statuses)}, "
        f"{row.retried} retried; "
        f"the generator {row.generator}; other programs took {row.others_cpu:.0%} of the machine; "
        f"{row.commit}, {row.date[:10]}"
    )
    return shown


def _whole(row: Soaked) -> str:
    if row.steady is None or row.whole is None:
        return ""
    return f", all replicas up {row.steady:.0%} of the time and {row.whole:.0%} of the peak in all of it"


def _percentile(values: list[float], share: float, scale: float = 1) -> float | None:
    return float(np.percentile(values, share)) * scale if values else None


def _named(counts: Counter[int]) -> dict[str, int]:
    return {str(status): count for status, count in sorted(counts.items())}


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} × {status}" for status, count in counts.items()) or "none"


def _refused(counts: dict[str, int]) -> bool:
    """503: it met a replica whose engine had just been killed."""
    return all(status.startswith("4") or status == "503" for status in counts)


def _number(value: float | None, unit: str) -> str:
    return "none" if value is None else f"{value:.0f} {unit}"
