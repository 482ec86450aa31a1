"""Replicas under a scaling policy, simulated: one heap of events, exact between them.

    arrival ─► the replica with the fewest requests ─► admission ─► its queue, in order ─► answer

A replica reads a fixed number of tokens a second, one request after the other, as vLLM does with prompts of
which many fit in a step. Everything else is what the code has: `Admission`'s bound, the deadline that
cancels, the policy itself (`qvl.ray_serve.policy`), Ray's reports, look-back, delays and bounds, drains.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt

from benchmarks.delays import Delays, Policy
from benchmarks.trace import Trace
from qvl.ray_serve.policy import QUEUED

ANSWERED, REFUSED, LATE, UNSERVED = range(4)
"""What became of a request; 200, 429, 504, and 503 for want of any replica."""
_LEAVE, _READY, _TICK, _GONE = range(4)


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Settings by the names that `qvl serve --ray` has for them, and what a replica can do."""

    min_replicas: int = 1
    max_replicas: int
    rate: float = 50_000.0
    """Tokens a second of one replica."""
    overhead: float = 0.004
    """Seconds of a request outside the model."""
    start_seconds: float = 60.0
    """From the decision until a new replica takes requests."""
    queue_tokens: int = 2_000_000
    request_seconds: float = 120.0
    upscale_seconds: float = 10.0
    downscale_seconds: float = 300.0
    drain_window: float = 3.0
    look_back: float = 12.0
    report_seconds: float = 2.0


@dataclass(slots=True)
class _Replica:
    number: int
    created: float
    up: bool = False
    draining: bool = False
    ends: float = 0.0
    """When it may end, if it drains and has nothing left."""
    requests: int = 0
    tokens: int = 0
    free: float = 0.0
    """When its model has read all that it was given."""
    changed: float = 0.0
    token_seconds: float = 0.0
    request_seconds: float = 0.0
    reports: deque[tuple[float, float, float]] = field(default_factory=deque)
    """Moments and the two integrals at them, as far back as the look-back goes."""

    def add(self, now: float, requests: int, tokens: int) -> None:
        self.integrate(now)
        self.requests += requests
        self.tokens += tokens

    def integrate(self, now: float) -> None:
        span = now - self.changed
        self.token_seconds += span * self.tokens
        self.request_seconds += span * self.requests
        self.changed = now


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of every request, in the order of the trace, and of the replicas together."""

    fates: npt.NDArray[np.int8]
    latencies: npt.NDArray[np.float64]
    """Seconds from arrival to answer, whatever it is."""
    replica_seconds: float
    """From the decision to have a replica until it has ended."""
    busy_seconds: float
    """Of these, those in which a model read."""
    peak: int
    """Most replicas at once."""


class Simulation:
    """One trace through one fleet."""

    def __init__(self, trace: Trace, fleet: Fleet, policy: Policy) -> None:
        self._trace, self._fleet, self._policy = trace, fleet, policy
        self._delays = Delays(fleet.upscale_seconds, fleet.downscale_seconds)
        self._events: list[tuple[float, int, int, _Replica | None, int]] = []
        self._serial = self._created = 0
        self._alive: dict[int, _Replica] = {}
        self._levels: dict[int, dict[int, _Replica]] = {}
        """Replicas that take requests, by how many they have; in turn within a level."""
        self._lowest = 0
        self._target = fleet.min_replicas
        self._replica_seconds = self._busy = 0.0
        self._peak = 0
        self._fates = np.full(len(trace.arrivals), UNSERVED, np.int8)
        self._latencies = np.zeros(len(trace.arrivals))

    def run(self) -> Outcome:
        for _ in range(self._fleet.min_replicas):
            self._ready(self._create(0.0), 0.0)
        self._at(0.0, _TICK)
        events, arrivals, sizes = self._events, self._trace.arrivals.tolist(), self._trace.tokens.tolist()
        for place, (now, tokens) in enumerate(zip(arrivals, sizes, strict=True)):
            while events[0][0] <= now:
                self._happen()
            self._arrive(place, now, tokens)
        end = self._trace.seconds
        while events and (events[0][0] <= end or any(each.requests for each in self._alive.values())):
            end = max(end, events[0][0])
            self._happen()
        self._replica_seconds += sum(end - each.created for each in self._alive.values())
        return Outcome(self._fates, self._latencies, self._replica_seconds, self._busy, self._peak)

    def _at(self, moment: float, kind: int, replica: _Replica | None = None, tokens: int = 0) -> None:
        self._serial += 1
        heapq.heappush(self._events, (moment, self._serial, kind, replica, tokens))

    def _happen(self) -> None:
        now, _, kind, replica, tokens = heapq.heappop(self._events)
        if replica is None:
            self._tick(now)
        elif kind == _LEAVE:
            self._move(replica, now, -1, -tokens)
            if replica.draining and not replica.requests:
                self._at(max(now, replica.ends), _GONE, replica)
        elif kind == _READY:
            if not replica.draining:
                self._ready(replica, now)
        elif not replica.requests and self._alive.pop(replica.number, None) is not None:
            self._replica_seconds += now - replica.created

    def _arrive(self, place: int, now: float, tokens: int) -> None:
        replica = self._fewest()
        fleet = self._fleet
        if replica is None:
            return
        if replica.tokens and replica.tokens + tokens > fleet.queue_tokens:
            self._fates[place] = REFUSED
            self._rotate(replica)
            return
        begins = max(now, replica.free)
        ends, deadline = begins + tokens / fleet.rate, now + fleet.request_seconds
        # What the deadline cuts off is not read to its end, or at all.
        stops = min(ends, max(deadline, begins))
        leaves = min(ends + fleet.overhead, deadline)
        self._busy += stops - begins
        replica.free = stops
        self._fates[place] = ANSWERED if leaves < deadline else LATE
        self._latencies[place] = leaves - now
        self._move(replica, now, 1, tokens)
        self._at(leaves, _LEAVE, replica, tokens)

    def _fewest(self) -> _Replica | None:
        if not self._levels:
            return None
        while self._lowest not in self._levels:
            self._lowest += 1
        return next(iter(self._levels[self._lowest].values()))

    def _move(self, replica: _Replica, now: float, requests: int, tokens: int) -> None:
        listed = replica.up and not replica.draining
        if listed:
            self._unlist(replica)
        replica.add(now, requests, tokens)
        if listed:
            self._list(replica)

    def _rotate(self, replica: _Replica) -> None:
        self._unlist(replica)
        self._list(replica)

    def _list(self, replica: _Replica) -> None:
        self._levels.setdefault(replica.requests, {})[replica.number] = replica
        self._lowest = min(self._lowest, replica.requests)

    def _unlist(self, replica: _Replica) -> None:
        level = self._levels[replica.requests]
        del level[replica.number]
        if not level:
            del self._levels[replica.requests]

    def _create(self, now: float) -> _Replica:
        self._created += 1
        replica = self._alive[self._created] = _Replica(self._created, now)
        self._peak = max(self._peak, sum(not each.draining for each in self._alive.values()))
        return replica

    def _ready(self, replica: _Replica, now: float) -> None:
        replica.up, replica.free, replica.changed = True, now, now
        self._list(replica)

    def _tick(self, now: float) -> None:
        """Every replica reports, and the controller decides."""
        fleet = self._fleet
        self._at(now + fleet.report_seconds, _TICK)
        wish, _ = self._policy(self._context(now))
        wished = min(max(math.ceil(wish), fleet.min_replicas), fleet.max_replicas)
        decided = self._delays.decide(wished, self._target, now)
        for _ in range(decided - self._target):
            self._at(now + fleet.start_seconds, _READY, self._create(now))
        if decided < self._target:
            self._drain(self._target - decided, now)
        self._target = decided

    def _context(self, now: float) -> SimpleNamespace:
        means: dict[int, float] = {}
        requests = 0.0
        for replica in self._alive.values():
            if not replica.up or replica.draining:
                continue
            replica.integrate(now)
            replica.reports.append((now, replica.token_seconds, replica.request_seconds))
            while replica.reports[0][0] < now - self._fleet.look_back:
                replica.reports.popleft()
            since, tokens, asked = replica.reports[0]
            if now > since:
                means[replica.number] = (replica.token_seconds - tokens) / (now - since)
                requests += (replica.request_seconds - asked) / (now - since)
        return SimpleNamespace(aggregated_metrics={QUEUED: means}, total_num_requests=requests)

    def _drain(self, count: int, now: float) -> None:
        """Those that are starting first, then the emptiest."""
        staying = [each for each in self._alive.values() if not each.draining]
        for replica in sorted(staying, key=lambda each: (each.up, each.requests))[:count]:
            if replica.up:
                self._unlist(replica)
            replica.draining = True
            replica.ends = now + self._fleet.drain_window * replica.up
            self._at(replica.ends, _GONE, replica)


def simulate(trace: Trace, fleet: Fleet, policy: Policy) -> Outcome:
    return Simulation(trace, fleet, policy).run()
