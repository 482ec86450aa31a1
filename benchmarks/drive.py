"""Rows from servers: closed loop at a number of requests in flight, and open loop under a latency bound."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import load, meter, plan
from benchmarks.asks import Ask
from benchmarks.contestants import Contestant
from benchmarks.load import Clients, Shot, Turn
from benchmarks.meter import Cpu, Usage
from benchmarks.plan import Slot
from benchmarks.processes import DidNotStart, Server, tail
from benchmarks.rows import Row
from benchmarks.scene import Scene, Truths
from benchmarks.stats import Summary, slowing, span, summary
from benchmarks.truth import Truth
from benchmarks.workloads import Workload, pool

_SEED = 17
_BOUNDS = 10
"""A rate of the open loop is tried for at least so many times the bound: a queue needs time to grow."""
_SLACK = 0.1
"""Of the bound: what answers may become slower by while a rate holds."""


@dataclass
class Entrant:
    """A contestant's running server."""

    contestant: Contestant
    server: Server
    best: dict[str, float] = field(default_factory=dict)
    """Requests per second of the closed loop, by workload."""

    @property
    def name(self) -> str:
        return self.contestant.name


@dataclass(frozen=True)
class Measured:
    """The turns of one contestant at one row."""

    turns: list[Turn] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)

    def numbers(self, found: Summary) -> dict[str, Any]:
        """Fields of the row."""
        used = sum((usage.cpu for usage in self.usages), Cpu())
        items = sum(t.items for turn in self.turns for t in turn.timings if t.status == 200) or 1
        shares = [u.gpu_busy(*span(turn.timings)) for turn, u in zip(self.turns, self.usages, strict=True)]
        busy = [share for share in shares if share is not None]
        return {
            **found.latencies,
            "turns": tuple(summary([turn.timings]).items_per_s for turn in self.turns),
            "gpu_busy": sum(busy) / len(busy) if busy else None,
            "cpu_s_per_item": used.api / items,
            "cpu_s_per_item_engine": used.engine / items,
            "peak_mem_gb": max(usage.memory_gb for usage in self.usages),
            "requests": found.requests,
            "seconds": found.seconds,
        }

    def failed(self, found: Summary) -> str:
        reason = next((turn.failure for turn in self.turns if turn.failure), "")
        return f"{found.failed} of {found.requests} requests failed ({reason})" if found.failed else ""


class Driver:
    """Drives the servers of one model."""

    def __init__(self, scene: Scene, entrants: Sequence[Entrant], truths: Truths, clients: Clients) -> None:
        self._scene = scene
        self._entrants = list(entrants)
        self._truths = truths
        self._clients = clients

    def closed(self, slot: Slot) -> Iterator[Row]:
        """A row of each contestant. They take turns, and every other turn in reverse order."""
        name = slot.workload.name
        measured = {entrant.name: Measured() for entrant in self._entrants}
        for turn in range(len(slot.starts)):
            with self._scene.console.status(f"{name}, {slot.concurrency} in flight, turn {turn + 1}"):
                asks = slot.asks(turn)
                for entrant in self._living()[:: -1 if turn % 2 else 1]:
                    if turn == 0:
                        self._warm(entrant, slot)
                    self._turn(entrant, slot, asks, measured[entrant.name])
        for entrant in self._living():
            if measured[entrant.name].turns:
                yield self._closed_row(entrant, slot, measured[entrant.name])

    def opened(self, workload: Workload) -> Iterator[Row]:
        """A row of each contestant: the highest Poisson rate that keeps p99 under the workload's bound."""
        bound = self._scene.options.profile.loads[workload.name].bound_ms
        if bound is None:
            return
        for entrant in self._living():
            if top := entrant.best.get(workload.name):
                with self._scene.console.status(f"{workload.name}, open loop, {entrant.name}"):
                    row = self._search(entrant, workload, top, bound)
                yield row

    def _living(self) -> list[Entrant]:
        for entrant in [each for each in self._entrants if not each.server.alive]:
            self._entrants.remove(entrant)
            self._scene.left_out(entrant.name, DidNotStart("it has died", tail(entrant.server.log)))
        return list(self._entrants)

    def _warm(self, entrant: Entrant, slot: Slot) -> None:
        """No longer than a turn, but what is asked repeatedly must all have been seen."""
        shots = self._shots(entrant, pool(slot.workload, 0, plan.WARM, plan.WARM))
        seconds = load.REQUEST_SECONDS if slot.workload.name.endswith("-repeated") else slot.seconds
        load.closed(entrant.server.url, shots, min(slot.concurrency, plan.WARM), seconds)

    def _turn(self, entrant: Entrant, slot: Slot, asks: Sequence[Ask], into: Measured) -> None:
        shots = self._shots(entrant, asks)
        keep = 0 if into.turns else plan.CHECKED_REQUESTS
        with meter.measured(entrant.server.pid, gpu=self._scene.site.gpu) as usage:
            turn = self._clients.closed(entrant.server.url, shots, slot.concurrency, slot.seconds, keep)
        into.turns.append(turn)
        into.usages.append(usage)

    def _shots(self, entrant: Entrant, asks: Sequence[Ask]) -> list[Shot]:
        return [entrant.contestant.shot(self._scene.site, ask) for ask in asks]

    def _known(self, workload: str, start: int) -> list[Truth]:
        return [self._truths[workload, start + place] for place in range(plan.CHECKED_REQUESTS)]

    def _closed_row(self, entrant: Entrant, slot: Slot, measured: Measured) -> Row:
        workload = slot.workload.name
        found = summary([turn.timings for turn in measured.turns])
        rate = found.items_per_s / slot.workload.items
        entrant.best[workload] = max(rate, entrant.best.get(workload, 0.0))
        failed = measured.failed(found)
        answers = [] if failed else [entrant.contestant.answer(body) for body in measured.turns[0].bodies]
        return self._scene.row(
            workload,
            "closed",
            entrant.name,
            concurrency=slot.concurrency,
            items_per_s=found.items_per_s,
            answers=answers,
            known=self._known(workload, slot.starts[0]),
            failed=failed,
            **measured.numbers(found),
        )

    def _search(self, entrant: Entrant, workload: Workload, rate: float, bound: float) -> Row:
        seconds = max(self._scene.options.profile.probe_seconds, _BOUNDS * bound / 1000)
        starts = map(plan.probe_start, itertools.count())
        tried: list[tuple[bool, int, Measured, Summary]] = []

        def holds(rate: float) -> bool:
            start = next(starts)
            count = max(plan.CHECKED_REQUESTS, int(rate * seconds))
            # Backwards: the first numbers are those with a truth, and the last requests those with a queue.
            shots = self._shots(entrant, pool(workload, start, count, os.cpu_count() or 1)[::-1])
            with meter.measured(entrant.server.pid, gpu=self._scene.site.gpu) as usage:
                turn = load.opened(entrant.server.url, shots, rate, _SEED, plan.CHECKED_REQUESTS)
            found = summary([turn.timings])
            slow = found.p99_ms > bound or slowing(turn.timings, _SLACK * bound)
            tried.append((not turn.failure and not slow, start, Measured([turn], [usage]), found))
            return tried[-1][0]

        for _ in load.highest(holds, rate, plan.PROBES):
            pass
        good, start, measured, found = max(tried, key=lambda probe: (probe[0], probe[3].items_per_s))
        failed = "" if good else f"p99 was over {bound:.0f} ms, or grew, at every rate that was tried"
        if all(held for held, *_ in tried):
            failed = "every rate that was tried held"
        return self._scene.row(
            workload.name,
            "open",
            entrant.name,
            items_per_s=found.items_per_s if good else 0.0,
            answers=[entrant.contestant.answer(body) for body in measured.turns[0].bodies[::-1]]
            if good
            else [],
            known=self._known(workload.name, start),
            failed=failed,
            bound_ms=bound,
            **measured.numbers(found),
        )
