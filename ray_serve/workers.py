"""The workers of `qvl embed --ray`, and who hands them their blocks."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvl.engine.config import EngineConfig
from qvl.engine.errors import ConfigError, QvlError, Unavailable
from qvl.engine.jobs.answers import answering
from qvl.engine.jobs.corpus import Block, Corpus
from qvl.engine.jobs.formats import embeddings_parquet
from qvl.engine.jobs.pipeline import run
from qvl.engine.jobs.progress import Report, say
from qvl.engine.jobs.settings import JobConfig, JobError
from qvl.engine.jobs.tasks import Embedding
from qvl.engine.jobs.work import Busy, Mark, Work
from qvl.engine.machine import cores
from qvl.engine.shares import decoding, divided
from qvl.ray_serve.card import alone_on_the_card, beside, cards_for, carried, gpus_of
from qvl.ray_serve.config import BulkConfig
from qvl.ray_serve.join import address_of, join

ATTEMPTS = 3
"""Workers that one block may cost: after that it is the block's fault."""
LOCK_SECONDS = 120.0
"""For Ray to end a lost worker that it cannot reach."""
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What every block of a corpus has in common."""

    out: Path
    job: JobConfig
    engine: EngineConfig | None
    settings: dict[str, Any]
    instruction: str | None
    dimensions: int | None


class Worker:
    """An actor: its engine answers one block after the other."""

    def __init__(self, order: Order, gpus: float, count: int) -> None:
        """One of `count`."""
        self._order, self._gpus, self._count = order, gpus, count

    async def start(self) -> None:
        """Not in the constructor: what is raised there reaches nobody as it is."""
        engine = self._order.engine and divided(self._order.engine, self._gpus or 1)
        engine = engine and decoding(engine, beside(self._count), cores())
        self._context = answering(self._order.job, engine)
        async with alone_on_the_card(self._gpus):
            self._answers = await self._context.__aenter__()

    async def block(self, block: Block) -> dict[str, int]:
        """The summary of its part, which is in its place when this returns."""
        order = self._order
        settings = settings_for(order, block)
        with ExitStack() as stack:
            work = await _locked(stack, work_of(order.out, block))
            if done := work.finished(settings, overwrite=False):
                return done
            work.begin(settings)
            task = Embedding(self._answers, order.instruction, order.dimensions)
            await run(task, block.lines(work.mark.index, order.engine), work, order.job, lambda _: None)
            summary = {"rows": work.mark.rows, "errors": work.mark.errors}
            made = work.folder / "made"
            # A part without a row is of the same type as the others, or they cannot be read as one.
            width = 0 if work.mark.rows else await task.width()
            await asyncio.to_thread(embeddings_parquet, work.folder, made, work.mark, width)
            work.finish(made, settings, summary)
        return summary


async def _locked(stack: ExitStack, work: Work) -> Work:
    """A lost worker may have it for a while yet. Raises Busy after that."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return stack.enter_context(work)
        except Busy:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(_LOOK_SECONDS)


def part(out: Path, block: Block) -> Path:
    return out / f"part-{block.number:05}.parquet"


def settings_for(order: Order, block: Block) -> dict[str, Any]:
    """What its part is made of; of anything else it is another job's."""
    return {**order.settings, "first": block.first, "count": block.count}


def work_of(out: Path, block: Block) -> Work:
    """Readers of a folder of parquet pass over names that begin with `_`."""
    return Work(part(out, block), Embedding.files, prefix="_")


def total_of(done: dict[int, dict[str, int]], corpus: Corpus) -> Mark:
    return Mark(
        lines=sum(corpus.blocks[number].count for number in done),
        rows=sum(each["rows"] for each in done.values()),
        errors=sum(each["errors"] for each in done.values()),
    )


def drive(
    order: Order,
    blocks: Sequence[Block],
    bulk: BulkConfig,
    done: dict[int, dict[str, int]],
    corpus: Corpus,
    report: Report,
) -> None:
    """Every block once, whatever workers it takes. Those that are still to start then are not waited for."""
    crew = Crew(order, blocks, bulk)
    while len(done) < len(corpus.blocks):
        for block, summary in crew.answers():
            done[block.number] = summary
            report(total_of(done, corpus))


class Crew:
    """Workers that start or have a block, and the blocks that wait for one."""

    def __init__(self, order: Order, blocks: Sequence[Block], bulk: BulkConfig) -> None:
        import ray

        self._order = order
        self._gpus, self._count = room(order, bulk, ray.cluster_resources().get("GPU", 0))
        self._remote = ray.remote(num_cpus=bulk.worker_cpus, num_gpus=self._gpus)(Worker)
        self._waiting, self._lost = deque(blocks), Counter[int]()
        self._unready = 0
        self._running: dict[Any, tuple[Any, Block | None]] = {}
        for _ in range(min(self._count, len(blocks))):
            self._begin()

    def answers(self) -> Iterator[tuple[Block, dict[str, int]]]:
        """The blocks that were done in about a second, each with its summary."""
        import ray

        for answer in ray.wait(list(self._running), timeout=_LOOK_SECONDS)[0]:
            worker, block = self._running.pop(answer)
            try:
                summary = ray.get(answer)
            except (ray.exceptions.RayActorError, ray.exceptions.RayTaskError) as error:
                if not self._is_lost(error):
                    raise _told(error) from None
                # Out of reach it may write on, and without its engine it holds a GPU.
                ray.kill(worker)
                self._lose(block, error)
                self._begin()
                continue
            if block is None:
                self._unready = 0
            if self._waiting:
                following = self._waiting.popleft()
                self._running[worker.block.remote(following)] = worker, following
            if block:
                yield block, summary

    def _begin(self) -> None:
        worker = self._remote.remote(self._order, self._gpus, self._count)
        self._running[worker.start.remote()] = worker, None

    def _lose(self, block: Block | None, error: Any) -> None:
        """The block is another's to begin again, unless it has cost too many workers. `error`: Ray's."""
        if block is None:
            self._unready += 1
            if self._unready == ATTEMPTS:
                reason = f" ({error.cause})" if isinstance(getattr(error, "cause", None), QvlError) else ""
                raise JobError(
                    f"{ATTEMPTS} workers in a row ended before they were ready{reason}; "
                    "their logs are in /tmp/ray/session_latest"
                )
            return
        self._lost[block.number] += 1
        if self._lost[block.number] == ATTEMPTS:
            raise JobError(
                f"block {block.number} has cost {ATTEMPTS} workers; "
                f"look at {block.path} from item {block.first}"
            )
        say(f"a worker was lost; block {block.number} is begun again by another")
        self._waiting.appendleft(block)

    def _is_lost(self, error: Any) -> bool:
        """Its process has ended or is out of reach, or the engine of its own has ended."""
        import ray

        if isinstance(error, ray.exceptions.RayActorError):
            return True
        return self._order.job.url is None and isinstance(error.cause, Unavailable)


def room(order: Order, bulk: BulkConfig, cards: float) -> tuple[float, int]:
    """GPUs of a worker, and how many workers. ConfigError where one would be waited for for ever."""
    gpus = bulk.worker_gpus or 0
    if bulk.worker_gpus is None and order.engine and not order.job.url:
        gpus = gpus_of(None, order.engine.tensor_parallel, cards)
    if not gpus:
        return gpus, bulk.ray_workers or 1
    if cards_for([gpus]) > cards:
        short = f"a worker takes {gpus:g} GPUs and there are {cards:g}"
        if address_of(bulk.ray_address) is None:
            raise ConfigError(f"{short}: give --worker-gpus")
        say(f"{short}; waiting for more")
    return gpus, bulk.ray_workers or max(1, carried(gpus, cards))


def _told(error: Any) -> Exception:
    """What the worker raised, where it is for the user."""
    cause = error.cause
    return cause if isinstance(cause, ConfigError | QvlError | OSError) else RuntimeError(str(error))


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Join one, or start one on this machine that ends with this command; what SIGTERM ends raises
    KeyboardInterrupt with its number, Ctrl-C with none."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ended: list[int] = []

    def stop(number: int, _: object) -> None:
        ended.append(number)
        raise KeyboardInterrupt

    join(address_of(address), log_to_driver=False)
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        # Not the handler's: where a signal finds Ray waiting, Ray raises one of its own.
        raise KeyboardInterrupt(*ended) from None
    finally:
        ray.shutdown()
