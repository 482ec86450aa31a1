"""The simulation of scaling: nothing gets lost, queueing theory holds, and its delays are Ray's."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.delays import Delays, by_requests
from benchmarks.fleet import (
    ANSWERED,
    LATE,
    REFUSED,
    UNSERVED,
    Fleet,
    Outcome,
    Policy,
    simulate,
)
from benchmarks.trace import Trace, bursty
from qvl.ray_serve.policy import QueuedTokens

RATE = 1000.0
FLEET = Fleet(max_replicas=4, rate=RATE, start_seconds=5, queue_tokens=6000, downscale_seconds=20)
TRACE = bursty(3, 600, 0.6 * RATE, 3 * RATE, sizes=0.02, pauses=0.2)


def poisson(rate: float, count: int, sizes: np.ndarray[Any, Any]) -> Trace:
    arrivals = np.cumsum(np.random.default_rng(1).exponential(1 / rate, count))
    return Trace(arrivals, sizes.astype(np.int64), float(arrivals[-1]))


@pytest.mark.parametrize("policy", [QueuedTokens(RATE), by_requests(2)], ids=["tokens", "requests"])
@pytest.mark.parametrize("deadline", [120.0, 4.0])
def test_every_request_has_one_fate_and_the_models_read_what_was_let_in(
    policy: Policy, deadline: float
) -> None:
    fleet = replace(FLEET, request_seconds=deadline)
    found = simulate(TRACE, fleet, policy)
    counts = {fate: int(np.sum(found.fates == fate)) for fate in (ANSWERED, REFUSED, LATE, UNSERVED)}
    assert sum(counts.values()) == len(TRACE.tokens)
    assert counts[UNSERVED] == 0
    assert counts[ANSWERED] > counts[REFUSED] > 0
    assert (counts[LATE] > 0) == (deadline == 4.0)
    answered = float(TRACE.tokens[found.fates == ANSWERED].sum())
    let_in = answered + float(TRACE.tokens[found.fates == LATE].sum())
    # The utilisation law: busy time is work over rate; what the deadline cut off is only partly in it.
    assert answered - 1e-6 <= found.busy_seconds * RATE <= let_in + 1e-6
    assert found.busy_seconds <= found.replica_seconds <= fleet.max_replicas * (TRACE.seconds + 60)
    assert found.latencies.max() <= deadline + 1e-9
    least = TRACE.tokens / RATE + fleet.overhead
    assert np.all(found.latencies[found.fates == ANSWERED] >= least[found.fates == ANSWERED] - 1e-9)


def test_the_same_seed_gives_the_same_run_and_another_another() -> None:
    def run(seed: int) -> Outcome:
        trace = bursty(seed, 200, RATE, RATE, sizes=0.02, pauses=0.2)
        return simulate(trace, FLEET, QueuedTokens(RATE))

    first, again, other = run(1), run(1), run(2)
    assert np.array_equal(first.latencies, again.latencies)
    assert (first.replica_seconds, first.peak) == (again.replica_seconds, again.peak)
    assert first.replica_seconds != other.replica_seconds


def test_one_replica_is_the_queue_of_the_textbook() -> None:
    sizes = np.random.default_rng(2).exponential(100, 60_000) + 1
    trace = poisson(6.0, len(sizes), sizes)
    fleet = replace(FLEET, max_replicas=1, queue_tokens=10**9, overhead=0.0, request_seconds=1e9)
    found = simulate(trace, fleet, QueuedTokens(RATE))
    service = trace.tokens / RATE
    load = 6.0 * service.mean()
    waiting = 6.0 * float(np.mean(service**2)) / (2 * (1 - load))  # Pollaczek and Khinchine
    assert np.mean(found.latencies - service) == pytest.approx(waiting, rel=0.1)
    assert found.busy_seconds / trace.seconds == pytest.approx(load, rel=0.02)


def test_more_replicas_are_added_for_one_large_request_only_by_tokens() -> None:
    trace = Trace(np.array([1.0]), np.array([60_000]), 100.0)
    fleet = replace(FLEET, upscale_seconds=2)
    assert simulate(trace, fleet, QueuedTokens(RATE)).peak == fleet.max_replicas
    assert simulate(trace, fleet, by_requests(2)).peak == 1


def test_a_burst_ends_where_it_began() -> None:
    trace = bursty(3, 300, 0.1 * RATE, 4 * RATE, sizes=0.02, pauses=0.2)
    quiet = Trace(np.append(trace.arrivals, 900.0), np.append(trace.tokens, 40), 900.0)
    fleet = replace(FLEET, max_replicas=8)
    bursting, whole = (simulate(each, fleet, QueuedTokens(RATE)) for each in (trace, quiet))
    assert bursting.peak == whole.peak == 8
    # From the end of the burst on, one replica is left: the rest has drained.
    assert whole.replica_seconds - bursting.replica_seconds < 600 + 8 * (fleet.downscale_seconds + 15)


def test_delays_are_those_of_ray() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, as it is imported
        from ray.serve.autoscaling_policy import _apply_delay_logic
        from ray.serve.config import AutoscalingConfig
    config = AutoscalingConfig(min_replicas=1, max_replicas=9, upscale_delay_s=4, downscale_delay_s=10)
    random = np.random.default_rng(5)
    mine, state, targets = Delays(4, 10), {}, [3, 3]
    for step in range(5000):
        wished = int(random.integers(1, 10)) if step % 7 == 0 or random.random() < 0.05 else targets[0]
        wished = wished if step % 40 < 20 else (8 if step % 80 < 40 else 2)
        targets[0], state = _apply_delay_logic(wished, targets[0], config, state, _now=float(step))
        targets[1] = mine.decide(wished, targets[1], float(step))
        assert targets[0] == targets[1], step
