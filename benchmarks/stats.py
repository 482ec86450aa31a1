"""Numbers of one row from the answers that came back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Timing:
    """One answered request; seconds of the system's monotonic clock."""

    asked: float
    """When it was sent; in open loop when it should have been sent."""
    answered: float
    items: int
    status: int
    """HTTP status; 0: no answer."""


TAIL_REQUESTS = 100
"""Of fewer, the 99th percentile is the slowest one's whim."""


@dataclass(frozen=True, slots=True)
class Summary:
    items_per_s: float
    requests: int
    failed: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float

    @property
    def latencies(self) -> dict[str, float | None]:
        """As a row has them."""
        late = self.p99_ms if self.requests >= TAIL_REQUESTS else None
        return {"p50_ms": self.p50_ms, "p90_ms": self.p90_ms, "p99_ms": late}


def span(turn: Sequence[Timing]) -> tuple[float, float]:
    """From the first one asked to the last one answered."""
    return min(timing.asked for timing in turn), max(timing.answered for timing in turn)


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
    seconds = sum(end - start for start, end in map(span, filter(None, turns)))
    latencies = [1000 * (timing.answered - timing.asked) for timing in good]
    p50, p90, p99 = np.quantile(latencies, (0.5, 0.9, 0.99)).tolist()
    return Summary(
        items_per_s=sum(timing.items for timing in good) / seconds,
        requests=total,
        failed=total - len(good),
        seconds=seconds,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
    )
