"""Numbers of one row from the answers that came back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """One answered request; seconds of the system's monotonic clock."""

    asked: float
    """When it was sent; in open loop when it should have been sent."""
    answered: float
    items: int
    status: int
    """HTTP status; 0: no answer."""


@dataclass(frozen=True, slots=True)
class Summary:
    items_per_s: float
    requests: int
    failed: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float


def percentile(values: Sequence[float], share: float) -> float:
    """Linear between the two nearest of `values`, which need not be sorted; `share` is 0 to 1."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def slowing(timings: Sequence[Timing], slack_ms: float) -> bool:
    """Whether those asked later waited half as long again, and by `slack_ms`: their queue grows."""
    ordered = sorted(timings, key=lambda timing: timing.asked)
    half = len(ordered) // 2
    early, late = (summary([part]).p50_ms for part in (ordered[:half], ordered[half:]))
    return late > 1.5 * early and late - early > slack_ms


def summary(turns: Sequence[Sequence[Timing]]) -> Summary:
    """Of all turns together: idle time between two turns does not count."""
    good = [timing for turn in turns for timing in turn if timing.status == 200]
    total = sum(map(len, turns))
    if not good:
        return Summary(0.0, total, total, 0.0, 0.0, 0.0, 0.0)
    seconds = sum(
        max(timing.answered for timing in turn) - min(timing.asked for timing in turn)
        for turn in turns
        if turn
    )
    latencies = [1000 * (timing.answered - timing.asked) for timing in good]
    return Summary(
        items_per_s=sum(timing.items for timing in good) / seconds,
        requests=total,
        failed=total - len(good),
        seconds=seconds,
        p50_ms=percentile(latencies, 0.5),
        p90_ms=percentile(latencies, 0.9),
        p99_ms=percentile(latencies, 0.99),
    )
