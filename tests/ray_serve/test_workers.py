"""Who hands the workers their blocks, on a Ray that answers in this process."""

from __future__ import annotations

import asyncio
import fcntl
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qvl.engine.config import EngineConfig
from qvl.engine.errors import BadRequest, ConfigError, Unavailable
from qvl.engine.jobs.corpus import Block, Corpus
from qvl.engine.jobs.settings import JobConfig, JobError
from qvl.ray_serve import workers
from qvl.ray_serve.config import BulkConfig
from qvl.ray_serve.workers import Order, Worker, drive, work_of

SUMMARY = {"rows": 1, "errors": 0}
PENDING = object()


class ActorError(Exception): ...


class TaskError(Exception):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(eq=False)
class Answer:
    value: Any


@dataclass
class Ray:
    """`starts` and `blocks` are what workers come to in turn: a value, an error, or PENDING for ever."""

    starts: deque[Any]
    blocks: deque[Any]
    asked: list[int] = field(default_factory=list)
    killed: int = 0
    looks: int = 0
    exceptions: Any = field(
        default_factory=lambda: SimpleNamespace(RayActorError=ActorError, RayTaskError=TaskError)
    )

    def cluster_resources(self) -> dict[str, float]:
        return {}

    def remote(self, **_: Any) -> Callable[[type], Any]:
        return lambda cls: SimpleNamespace(remote=self._worker)

    def _worker(self, *_: Any) -> Any:
        def block(given: Block) -> Answer:
            self.asked.append(given.number)
            return Answer(self.blocks.popleft() if self.blocks else SUMMARY)

        start = Answer(self.starts.popleft() if self.starts else None)
        return SimpleNamespace(
            start=SimpleNamespace(remote=lambda: start), block=SimpleNamespace(remote=block)
        )

    def wait(self, answers: list[Answer], timeout: float) -> tuple[list[Answer], list[Answer]]:
        self.looks += 1
        assert self.looks < 100, "waits for workers that have nothing left to do"
        return [each for each in answers if each.value is not PENDING][:1], []

    def get(self, answer: Answer) -> Any:
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value

    def kill(self, worker: Any) -> None:
        self.killed += 1


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    made = Ray(deque(), deque())
    monkeypatch.setitem(sys.modules, "ray", made)  # type: ignore[arg-type]  # as a module it is imported
    return made


def order(out: Path, url: str | None = None) -> Order:
    engine = None if url else EngineConfig(embedder="x")
    return Order(
        out=out, job=JobConfig(url=url), engine=engine, settings={}, instruction=None, dimensions=None
    )


def driven(asked: Order, number: int = 4) -> dict[int, dict[str, int]]:
    blocks = tuple(Block(i, i, 1, Path("in.jsonl")) for i in range(number))
    done: dict[int, dict[str, int]] = {}
    bulk = BulkConfig(ray_workers=2, worker_gpus=0)
    drive(asked, blocks, bulk, done, Corpus(blocks, "", number, 0), lambda _: None)
    return done


def test_nobody_waits_for_a_worker_that_never_starts(ray: Ray, tmp_path: Path) -> None:
    ray.starts = deque([None, PENDING])
    assert driven(order(tmp_path)) == dict.fromkeys(range(4), SUMMARY)


@pytest.mark.parametrize("lost", [ActorError(), TaskError(Unavailable("dead", code="engine_dead"))])
def test_a_lost_worker_is_killed_and_its_block_begun_again(ray: Ray, tmp_path: Path, lost: Any) -> None:
    ray.blocks = deque([SUMMARY, lost])
    assert driven(order(tmp_path)) == dict.fromkeys(range(4), SUMMARY)
    assert ray.killed == 1
    assert sorted(ray.asked) == [0, 1, 1, 2, 3]


def test_what_every_worker_would_meet_ends_the_job(ray: Ray, tmp_path: Path) -> None:
    away = Unavailable("cannot reach the server", code="connection_lost")
    for given, asked in ((away, order(tmp_path, url="http://h")), (BadRequest("no"), order(tmp_path))):
        ray.blocks = deque([TaskError(given)])
        with pytest.raises(type(given)):
            driven(asked)
    ray.blocks = deque([ActorError()] * 9)
    with pytest.raises(JobError, match="block 0 has cost 3 workers"):
        driven(order(tmp_path), 1)


def test_workers_that_never_get_ready_end_the_job_only_in_a_row(ray: Ray, tmp_path: Path) -> None:
    lost = ActorError()
    ray.starts = deque([None, None, lost, None, lost, None, lost, None])
    ray.blocks = deque([SUMMARY, lost, *[SUMMARY] * 4, lost, *[SUMMARY] * 4, lost])
    assert len(driven(order(tmp_path), 16)) == 16
    assert (ray.killed, len(ray.starts)) == (6, 0)
    ray.starts = deque([lost] * 4)
    with pytest.raises(JobError, match="3 workers in a row ended before they were ready"):
        driven(order(tmp_path))


@pytest.mark.parametrize("seconds", [60, 0])
def test_a_worker_waits_for_the_lock_of_one_that_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(workers, "LOCK_SECONDS", seconds)
    monkeypatch.setattr(workers, "_LOOK_SECONDS", 0.01)
    block, asked = Block(0, 0, 1, tmp_path / "in.jsonl"), order(tmp_path)
    folder = work_of(tmp_path, block).folder
    folder.mkdir()

    async def both() -> Any:
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            task = asyncio.create_task(Worker(asked, 0, 1).block(block))
            await asyncio.sleep(0.1)
        return await task

    # With the lock it goes on, to the answers that it has not.
    expected, message = (AttributeError, "_answers") if seconds else (ConfigError, "another run is writing")
    with pytest.raises(expected, match=message):
        asyncio.run(both())
