"""`python -m benchmarks.scaling`: the scaling policy on a bursty trace, simulated for 1 to 1 000 replicas.

`check` runs the same simulation beside a real Ray Serve cluster of 2 and of 3 replicas on this machine.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from cyclopts import App
from rich.console import Console
from rich.table import Table

from benchmarks import rows
from benchmarks.delays import Policy, by_requests
from benchmarks.fleet import Fleet, simulate
from benchmarks.rows import Row
from benchmarks.tally import WITHIN_SECONDS, Tally, mean
from benchmarks.trace import Trace, bursty
from qvl.ray_serve.policy import QueuedTokens

SECONDS = 1800.0
QUIET, BURST = 0.15, 0.5
"""Of what all replicas together can read."""
OURS, RAYS = "qvl", "requests-2"

app = App(name="python -m benchmarks.scaling", result_action="return_value")


def policies(fleet: Fleet, trace: Trace) -> dict[str, Policy]:
    """Ours at its default and at a second of work; Ray's at its default and at a second of work."""
    tuned = fleet.rate / float(trace.tokens.mean())
    return {
        "qvl-200000": QueuedTokens(200_000),
        OURS: QueuedTokens(fleet.rate),
        RAYS: by_requests(2),
        "requests-tuned": by_requests(tuned),
    }


def row(name: str, replicas: int, mode: str, found: Tally, date: str) -> Row:
    return rows.here(
        date=date,
        profile="scaling",
        model="simulated" if mode == "simulated" else "paced",
        dtype="none",
        workload="bursty trace",
        mode=mode,
        concurrency=replicas,
        contestant=name,
        items_per_s=found.goodput * found.requests / found.seconds,
        p50_ms=1000 * found.p50,
        p99_ms=1000 * found.p99,
        requests=found.requests,
        seconds=found.seconds,
        bound_ms=1000 * WITHIN_SECONDS,
        goodput=found.goodput,
        replica_seconds=found.replica_seconds,
    )


def table(title: str) -> Table:
    shown = Table(title=title, title_justify="left")
    for name in ("replicas", "policy", "goodput", "refused", "p50 s", "p99 s", "replica-s", "busy", "peak"):
        shown.add_column(name, justify="left" if name == "policy" else "right")
    return shown


def line(name: str, replicas: int, found: Tally) -> tuple[str, ...]:
    return (
        f"{replicas}",
        name,
        f"{found.goodput:.1%}",
        f"{found.refused:.1%}",
        f"{found.p50:.2f}",
        f"{found.p99:.1f}",
        f"{found.replica_seconds:,.0f}",
        "" if found.busy is None else f"{found.busy:.0%}",
        f"{found.peak}",
    )


def results() -> Path:
    return rows.RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-scaling.jsonl"


@app.default
def scaling(replicas: tuple[int, ...] = (1, 3, 10, 30, 100, 300, 1000), seeds: int = 5) -> int:
    """Simulate, print a table, add rows; as many seeds as there are, fewer where there are many replicas."""
    console, date = Console(width=110), rows.now()
    shown = table(f"bursty trace, {SECONDS:g} s, good within {WITHIN_SECONDS:g} s")
    for most in replicas:
        fleet = Fleet(min_replicas=max(1, most // 10), max_replicas=most)
        found: dict[str, list[Tally]] = {}
        for seed in range(max(1, min(seeds, 300 // most))):
            trace = bursty(seed, SECONDS, QUIET * most * fleet.rate, BURST * most * fleet.rate)
            for name, policy in policies(fleet, trace).items():
                outcome = simulate(trace, fleet, policy)
                found.setdefault(name, []).append(Tally.of(outcome, SECONDS))
        for name, each in found.items():
            shown.add_row(*line(name, most, mean(each)))
            rows.append(results(), [row(name, most, "simulated", mean(each), date)])
    console.print(shown)
    return 0


@app.command
def check(replicas: tuple[int, ...] = (2, 3), seconds: float = 150.0, seed: int = 4) -> int:
    """Predicted beside measured, on a real cluster whose engines are clocks (`paced.py`)."""
    from benchmarks import cluster

    console, date = Console(width=110), rows.now()
    shown = table(f"the simulation beside a real cluster, {seconds:g} s")
    for most in replicas:
        measured, predicted = cluster.both(most, seconds, seed)
        for name, mode, found in (("measured", "real", measured), ("predicted", "simulated", predicted)):
            shown.add_row(*line(name, most, found))
            rows.append(results(), [row(name, most, mode, found, date)])
    console.print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(app())
