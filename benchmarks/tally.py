"""What is told of a run of many replicas, simulated or real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.fleet import ANSWERED, REFUSED, Outcome

WITHIN_SECONDS = 10.0
"""An answer after that is no good."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Of one run, simulated or real."""

    requests: int
    seconds: float
    goodput: float
    refused: float
    p50: float
    p99: float
    replica_seconds: float
    peak: int
    busy: float | None = None

    @classmethod
    def of(cls, outcome: Outcome, seconds: float) -> Tally:
        answered = outcome.fates == ANSWERED
        latencies = outcome.latencies[answered]
        return cls(
            requests=len(answered),
            seconds=seconds,
            goodput=float(np.mean(answered & (outcome.latencies <= WITHIN_SECONDS))),
            refused=float(np.mean(outcome.fates == REFUSED)),
            p50=float(np.quantile(latencies, 0.5)),
            p99=float(np.quantile(latencies, 0.99)),
            replica_seconds=outcome.replica_seconds,
            peak=outcome.peak,
            busy=outcome.busy_seconds / outcome.replica_seconds,
        )


def mean(found: Sequence[Tally]) -> Tally:
    numbers: dict[str, Any] = {
        name: float(np.mean([getattr(each, name) for each in found])) for name in Tally.__slots__
    }
    return Tally(**{**numbers, "peak": round(numbers["peak"]), "requests": round(numbers["requests"])})
