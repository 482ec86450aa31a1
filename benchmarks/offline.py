"""Engines without a server, each in a process of its own: what they are handed and what they hand back.

`contestants/inprocess.py` is that process.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import meter, processes
from benchmarks.asks import Ask
from benchmarks.contestants.base import Answer, Site

Answers = tuple[list[Answer], list[int]]
"""One array for each request, and the tokens of each item (none where the engine does not say)."""


@dataclass(frozen=True, slots=True)
class Task:
    """Requests handed over at once. `warm` are answered before the clock starts."""

    name: str
    asks: list[Ask]
    warm: list[Ask] = field(default_factory=list)
    batch: int = 1
    """Items that the Hugging Face code puts through the model together."""


@dataclass(frozen=True, slots=True)
class Job:
    contestant: str
    site: Site
    tasks: list[Task]


@dataclass(frozen=True, slots=True)
class Done:
    name: str
    items: int
    seconds: float
    memory_gb: float
    gpu_busy: float | None
    answers: list[Answer]
    tokens: list[int]


def run(job: Job, folder: Path, seconds: float) -> list[Done]:
    """In a process of its own. Raises DidNotStart."""
    stem = f"offline-{job.contestant}-{job.site.role}"
    sent, back = folder / f"{stem}.job", folder / f"{stem}.done"
    sent.write_bytes(pickle.dumps(job))
    command = [sys.executable, "-m", "benchmarks.contestants.inprocess", str(sent), str(back)]
    log = folder / f"{stem}.log"
    processes.run(command, {**job.site.environment, "PYTHONPATH": _path()}, log=log, seconds=seconds)
    done: list[Done] = pickle.loads(back.read_bytes())
    return done


def clocked(task: Task, site: Site, answer: Callable[[Task], Answers]) -> Done:
    """`answer` on the warm-up, then on the task under the clock."""
    if task.warm:
        answer(Task(task.name, task.warm, batch=task.batch))
    with meter.measured(os.getpid(), gpu=site.gpu) as usage:
        start = time.monotonic()
        answers, tokens = answer(task)
        seconds = time.monotonic() - start
    return Done(
        name=task.name,
        items=sum(ask.count for ask in task.asks),
        seconds=seconds,
        memory_gb=usage.memory_gb,
        gpu_busy=usage.gpu_busy(start, start + seconds),
        answers=answers,
        tokens=tokens,
    )


def _path() -> str:
    known = os.environ.get("PYTHONPATH")
    root = str(Path(__file__).parent.parent)
    return f"{root}{os.pathsep}{known}" if known else root
