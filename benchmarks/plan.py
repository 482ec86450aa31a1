"""Which rows a run makes, and which requests each of them sends."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.asks import Ask, Role
from benchmarks.profiles import Load, Mode, Profile
from benchmarks.workloads import Workload, pool

CHECKED_REQUESTS = 2
"""Of each row and contestant, under load."""
CHECKED_ITEMS = 4
"""Of each checked request."""
WARM = 4
"""Requests before the clock starts, at most."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """One run, as the command line has it."""

    profile: Profile
    models: dict[Role, Path]
    workloads: tuple[str, ...]
    contestants: tuple[str, ...]
    modes: tuple[Mode, ...]
    concurrencies: tuple[int, ...]
    """In place of the profile's (empty: the profile's)."""
    api_servers: tuple[int, ...] = (1,)
    """Of `vllm-tuned`, one server for each count."""
    replicas: tuple[int, ...] = (1,)
    """Of `qvl`, likewise."""
    quantization: str | None = None
    out: Path

    @property
    def dtype(self) -> str:
        """Of the rows: the quantisation's name, or the type that all else is computed in."""
        return self.quantization or self.profile.dtype


@dataclass(frozen=True)
class Slot:
    """One row of each contestant: `starts` are the first requests of its turns."""

    workload: Workload
    concurrency: int
    starts: tuple[int, ...]
    count: int
    """Requests that are made for one turn."""
    seconds: float
    """Of one turn."""

    def asks(self, turn: int) -> list[Ask]:
        return pool(self.workload, self.starts[turn], self.count, os.cpu_count() or 1)


def slots(options: Options, chosen: Sequence[Workload]) -> list[Slot]:
    """No two turns of a workload share a request, so that nothing is answered out of a cache by accident."""
    profile = options.profile
    made = []
    for workload in chosen:
        load = profile.loads[workload.name]
        start = WARM
        for concurrency in options.concurrencies or load.closed:
            seconds = profile.seconds / profile.rounds
            count = made_for(load, seconds) + concurrency
            starts = tuple(start + turn * count for turn in range(profile.rounds))
            start += profile.rounds * count
            made.append(Slot(workload, concurrency, starts, count, seconds))
    return made


def made_for(load: Load, seconds: float) -> int:
    return math.ceil(load.most * seconds)


PROBES = 5
"""Rates that the open loop tries."""
OFFLINE_START = 20_000_000
"""Numbers of the requests of the other modes are out of reach of the closed loop's."""


def probe_start(probe: int) -> int:
    """Of the requests of one rate of the open loop; each has fewer than the distance to the next."""
    return 10_000_000 + 100_000 * probe


def checked(options: Options, chosen: Sequence[Workload]) -> Iterator[tuple[Workload, int]]:
    """For each row the first of the `CHECKED_REQUESTS` whose answers are checked."""
    if "closed" in options.modes:
        yield from ((slot.workload, slot.starts[0]) for slot in slots(options, chosen))
    for workload in chosen:
        load = options.profile.loads[workload.name]
        if "open" in options.modes and load.bound_ms:
            yield from ((workload, probe_start(probe)) for probe in range(PROBES))
        if "offline" in options.modes and load.offline:
            yield workload, OFFLINE_START
