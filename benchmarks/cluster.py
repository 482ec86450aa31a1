"""A real cluster whose engines are clocks, driven by a trace, and the simulation of that cluster."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from benchmarks import load, paced
from benchmarks.fleet import Fleet, simulate
from benchmarks.load import Shot
from benchmarks.tally import WITHIN_SECONDS, Tally
from benchmarks.trace import bursty
from qvl.engine.admission import BYTES_PER_TOKEN, TEMPLATE_TOKENS
from qvl.engine.response import dump
from qvl.ray_serve.policy import QueuedTokens
from tests.ray_serve.cluster import Cluster, title

QUIET, BURST = 0.2, 0.7
SIZES, PAUSES = 0.1, 0.2
QUEUE_TOKENS = 100_000
UPSCALE_SECONDS, DOWNSCALE_SECONDS = 2.0, 12.0
_LOOK_SECONDS = 0.25
_PROBES = 50


@dataclass
class Watch:
    """How many replicas there are, and how many of them take requests."""

    moments: list[float] = field(default_factory=list)
    there: list[int] = field(default_factory=list)
    up: list[int] = field(default_factory=list)

    @property
    def replica_seconds(self) -> float:
        return float(np.sum(np.diff(self.moments) * self.there[:-1]))

    @property
    def start_seconds(self) -> float:
        """From a replica's process to the first request that HAProxy would send it; the mean of them."""
        times, up = np.array(self.moments), np.array(self.up)
        waits = [
            float(later[0] - times[place])
            for place, count in enumerate(self.there)
            if place and count > self.there[place - 1]
            if len(later := times[(up >= count) & (times >= times[place])])
        ]
        return float(np.mean(waits)) if waits else paced.START_SECONDS


@contextmanager
def watching(cluster: Cluster) -> Iterator[Watch]:
    seen, over = Watch(), threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            there = sum("qvl-both" in title(each) for each in cluster.replicas())
            up = cluster.up("both")
            seen.moments.append(time.monotonic())
            seen.there.append(there)
            seen.up.append(up)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def both(most: int, seconds: float, seed: int) -> tuple[Tally, Tally]:
    """Measured, predicted."""
    trace = bursty(
        seed, seconds, QUIET * most * paced.RATE, BURST * most * paced.RATE, sizes=SIZES, pauses=PAUSES
    )
    shots = [_shot(int(tokens)) for tokens in trace.tokens]
    settings = {
        "max-replicas": most,
        "replica-cpus": 0.1,
        "queue-tokens": QUEUE_TOKENS,
        "replica-tokens": int(paced.RATE),
        "upscale-seconds": UPSCALE_SECONDS,
        "downscale-seconds": DOWNSCALE_SECONDS,
        "split-tokens": 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        command = ["benchmarks.paced", *(f"--{name}={value}" for name, value in settings.items())]
        with Cluster(command, Path(folder) / "log") as cluster:
            overhead = _overhead(cluster.url)
            with watching(cluster) as seen:
                turn = load.replayed(cluster.url, shots, trace.arrivals.tolist())
            cluster.stop()
    latencies = np.array([each.answered - each.asked for each in turn.timings])
    statuses = np.array([each.status for each in turn.timings])
    answered = statuses == 200
    measured = Tally(
        requests=len(statuses),
        seconds=seconds,
        goodput=float(np.mean(answered & (latencies <= WITHIN_SECONDS))),
        refused=float(np.mean(statuses == 429)),
        p50=float(np.quantile(latencies[answered], 0.5)),
        p99=float(np.quantile(latencies[answered], 0.99)),
        replica_seconds=seen.replica_seconds,
        peak=max(seen.there),
    )
    fleet = Fleet(
        max_replicas=most,
        rate=paced.RATE,
        overhead=overhead,
        start_seconds=seen.start_seconds,
        queue_tokens=QUEUE_TOKENS,
        upscale_seconds=UPSCALE_SECONDS,
        downscale_seconds=DOWNSCALE_SECONDS,
    )
    return measured, Tally.of(simulate(trace, fleet, QueuedTokens(paced.RATE)), seconds)


def _shot(tokens: int) -> Shot:
    text = "a" * (BYTES_PER_TOKEN * (tokens - TEMPLATE_TOKENS))
    return Shot("/v1/embeddings", dump({"input": text, "encoding_format": "base64"}), 1)


def _overhead(url: str) -> float:
    """Seconds of a small request beside its reading: the median of some that are alone."""
    shot, times = _shot(TEMPLATE_TOKENS + 1), []
    with httpx.Client(base_url=url, trust_env=False) as client:
        for _ in range(_PROBES):
            started = time.monotonic()
            client.post(shot.path, content=shot.body, headers={"content-type": "application/json"})
            times.append(time.monotonic() - started)
    return float(np.median(times)) - (TEMPLATE_TOKENS + 1) / paced.RATE
