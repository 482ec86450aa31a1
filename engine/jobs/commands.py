"""`qvl embed` and `qvl rerank`: check, answer what is left, put the file in its place."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvl.engine.config import EngineConfig
from qvl.engine.jobs import batch, formats
from qvl.engine.jobs.answers import answering, settings_of
from qvl.engine.jobs.batch import Batch
from qvl.engine.jobs.files import most_of, refuse_others, refuse_output, with_files
from qvl.engine.jobs.formats import Writer, writer_for
from qvl.engine.jobs.lines import Fingerprint, fingerprint, read
from qvl.engine.jobs.pipeline import run, to_its_end
from qvl.engine.jobs.progress import counted, duration, exit_code, first_wrong, reporting, say
from qvl.engine.jobs.settings import JobConfig, JobError
from qvl.engine.jobs.tasks import Embedding, Ranking
from qvl.engine.jobs.work import Work


@dataclass(frozen=True, slots=True)
class Order:
    """One job as the command line gave it."""

    source: Path
    out: Path
    job: JobConfig
    engine: EngineConfig | None
    role: str | None
    """Of the model that is asked; None: each line says it."""
    asked: dict[str, Any]
    """What goes with every line, e.g. the instruction; another value is another job."""
    task: type[Embedding | Ranking | Batch]
    writer: Writer


def embed_file(
    source: Path,
    out: Path,
    job: JobConfig,
    engine: EngineConfig | None,
    instruction: str | None,
    dimensions: int | None,
) -> int:
    asked = {"instruction": instruction, "dimensions": dimensions}
    writer = writer_for(out, formats.EMBEDDINGS)
    order = Order(source, out, job, engine, "embedder", asked, Embedding, writer)
    return until_stopped(carry_out(order), job)


def rerank_file(
    source: Path, out: Path, job: JobConfig, engine: EngineConfig | None, instruction: str | None
) -> int:
    asked, writer = {"instruction": instruction}, writer_for(out, formats.RANKINGS)
    order = Order(source, out, job, engine, "reranker", asked, Ranking, writer)
    return until_stopped(carry_out(order), job)


def batch_file(source: Path, out: Path, job: JobConfig, engine: EngineConfig | None) -> int:
    order = Order(source, out, job, engine, None, {}, Batch, writer_for(out, formats.BATCHES))
    return until_stopped(carry_out(order), job)


def until_stopped(running: Coroutine[Any, Any, int], job: JobConfig) -> int:
    """The exit code of a job that its own command goes on with."""
    try:
        return asyncio.run(running)
    except (KeyboardInterrupt, asyncio.CancelledError) as stop:
        say(f"stopped; {job.again} goes on from here")
        return 128 + (signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)


async def carry_out(order: Order) -> int:
    stop_politely()
    if not order.out.parent.is_dir():
        raise JobError(f"cannot write {order.out}: there is no folder {order.out.parent}")
    refuse_others(order.source)
    refuse_output(order.out, order.source)
    given = await asyncio.to_thread(fingerprint, order.source)
    answered_by = await settings_of(order.job, order.engine, order.role)
    settings = {"input": given.sha256, "role": order.role, **order.asked, **answered_by}
    with Work(order.out, order.task.files) as work, work.on_a_full_disk(order.job):
        done = work.finished(settings, order.job.overwrite)
        if done is not None:
            say(f"{order.out} is finished already: {_told(done)}")
            return _exit_code(done, work)
        work.begin(settings)
        await _answer(order, work, given)
        lost = formats.lost_documents(work.folder) if order.task is Ranking else 0
        summary = {"rows": work.mark.rows, "errors": work.mark.errors, "lost": lost}
        made = work.folder / "made"
        await to_its_end(order.writer, work.folder, made, work.mark)
        work.finish(made, settings, summary)
    say(f"{order.out}: {_told(summary)}")
    if summary["errors"]:
        say(f"what was wrong with them: {work.errors}")
    return _exit_code(summary, work)


async def _answer(order: Order, work: Work, given: Fingerprint) -> None:
    """Every line that no earlier run has answered."""
    left = given.lines - work.mark.lines
    if work.mark.lines:
        say(f"{counted(work.mark.lines, 'line')} answered before; going on with the other {left:,}")
    if not left:
        return
    async with answering(order.job, order.engine) as answers:
        started = time.monotonic()
        with reporting(given.lines, work.mark) as report:
            todo = read(order.source, work.mark.index, work.mark.offset)
            most = most_of(order.engine)
            lines = (with_files(line, order.source.parent, most) for line in todo)
            task = order.task(answers, **order.asked)
            if isinstance(task, Batch):
                await asyncio.to_thread(task.recall, order.source, work.mark)
            record = batch.told if isinstance(task, Batch) else None
            await run(task, lines, work, order.job, report, record)
        seconds = time.monotonic() - started
    say(f"{counted(left, 'line')} in {duration(seconds)}, {left / max(seconds, 1e-9):,.1f}/s")


def _told(summary: dict[str, Any]) -> str:
    bad = f", {counted(summary['errors'], 'bad line')} left out" if summary["errors"] else ""
    lost = f", {counted(summary['lost'], 'document')} without a score" if summary.get("lost") else ""
    return f"{counted(summary['rows'], 'row')}{lost}{bad}"


def _exit_code(summary: dict[str, Any], work: Work) -> int:
    return exit_code(summary["rows"], summary["errors"], lambda: first_wrong([work.errors]))


def stop_politely() -> None:
    """SIGTERM as Ctrl-C: what is answered gets committed, and the engine stopped."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
