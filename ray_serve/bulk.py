"""`qvl embed --ray`: a corpus larger than memory, over the machines of a Ray cluster.

    survey ─► blocks ─► workers, one engine each ─► OUT/part-00000.parquet ... ─► OUT/_manifest.json

Plain actors rather than Ray Data, which cuts and names its output as it runs, so that a second run cannot
tell what is done, and needs pandas. Here a block is a file job of `qvl.engine.jobs`: its work folder, journal
and rename give every row exactly once, whoever is killed and when. All machines must see the same files.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from qvl.engine.config import EngineConfig
from qvl.engine.jobs.answers import settings_of
from qvl.engine.jobs.corpus import Block, Corpus, survey
from qvl.engine.jobs.progress import counted, duration, exit_code, first_wrong, reporting, say
from qvl.engine.jobs.settings import JobConfig, JobError
from qvl.engine.jobs.work import Mark, difference, write_whole
from qvl.ray_serve.config import BulkConfig
from qvl.ray_serve.workers import Order, cluster, drive, part, settings_for, total_of, work_of

MANIFEST = "_manifest.json"
RECORD = "_job.json"
OURS = ("part-", "_part-", MANIFEST, RECORD)
"""How the names begin of what a job writes."""


def embed_corpus(
    source: Path,
    out: Path,
    job: JobConfig,
    engine: EngineConfig | None,
    instruction: str | None,
    dimensions: int | None,
    bulk: BulkConfig,
) -> int:
    """The exit code. JobError, ConfigError and QvlError are one line for the user."""
    if out.suffix:
        raise JobError(f"with --ray the output is a folder of parquet files: give -o {out.with_suffix('')}")
    if out.exists() and not out.is_dir():
        raise JobError(f"{out} is no folder: with --ray the output is a folder of parquet files")
    if out.exists() and source.exists() and out.samefile(source):
        raise JobError(f"{out} is the input: give another folder to -o")
    out.mkdir(parents=True, exist_ok=True)
    say(f"surveying {source.resolve()}")
    corpus, engine = survey(source.resolve(), bulk.block), engine and _from_anywhere(engine)
    if corpus.skipped:
        say(f"{corpus.skipped:,} files that are neither text, image nor video are left out")
    answered_by = asyncio.run(settings_of(job, engine, "embedder"))
    asked = {"instruction": instruction, "dimensions": dimensions, "block": bulk.block}
    order = Order(
        out=out.resolve(),
        job=job,
        engine=engine,
        settings={"input": corpus.sha256, "role": "embedder", **asked, **answered_by},
        instruction=instruction,
        dimensions=dimensions,
    )
    try:
        return _carry_out(order, corpus, bulk)
    except KeyboardInterrupt as stop:
        say(f"stopped; {job.again} goes on from here")
        return 128 + (signal.SIGTERM if stop.args else signal.SIGINT)


def _from_anywhere(engine: EngineConfig) -> EngineConfig:
    """A worker is in a working folder of its own: each path that is a folder here becomes absolute."""

    def absolute(name: str) -> str:
        path = Path(name).expanduser()
        return str(path.resolve()) if path.is_dir() else name

    def adapter(given: str) -> str:
        name, equals, folder = given.partition("=")
        return f"{name}{equals}{absolute(folder) if folder else ''}"

    roots = tuple(map(absolute, engine.media.file_roots))
    return replace(
        engine,
        lora=tuple(map(adapter, engine.lora)),
        models=tuple(map(absolute, engine.models)),
        embedder=engine.embedder and absolute(engine.embedder),
        reranker=engine.reranker and absolute(engine.reranker),
        media=replace(engine.media, file_roots=roots),
    )


def _carry_out(order: Order, corpus: Corpus, bulk: BulkConfig) -> int:
    _begin(order)
    done = {block.number: summary for block in corpus.blocks if (summary := _finished(order, block))}
    left = [block for block in corpus.blocks if block.number not in done]
    if done and left:
        say(f"{len(done):,} of {len(corpus.blocks):,} blocks were done before")
    if left:
        started = time.monotonic()
        begun_at = total_of(done, corpus)
        with cluster(bulk.ray_address), reporting(corpus.items, begun_at) as report:
            drive(order, left, bulk, done, corpus, report)
        seconds = time.monotonic() - started
        items = sum(block.count for block in left)
        say(f"{counted(items, 'item')} in {duration(seconds)}, {items / max(seconds, 1e-9):,.1f}/s")
    total = _list(order, corpus, done)
    bad = sorted(order.out.glob("_part-*.errors.jsonl"))
    return exit_code(total.rows, total.errors, lambda: first_wrong(bad))


def _begin(order: Order) -> None:
    """Raises JobError where another job has begun."""
    record = order.out / RECORD
    if order.job.overwrite:
        _clear(order.out)
    if not record.exists() and any(each.name.startswith(OURS) for each in order.out.iterdir()):
        raise JobError(f"{order.out} holds what another job left; --overwrite starts again")
    if what := difference(_begun(order.out, order.settings), order.settings):
        raise JobError(f"{order.out} was begun with {what}; --overwrite starts again")
    write_whole(record, orjson.dumps(order.settings, option=orjson.OPT_INDENT_2))


def _begun(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What the job there was begun with: where there is none, `settings`."""
    record = out / RECORD
    begun: dict[str, Any] = orjson.loads(record.read_bytes()) if record.exists() else settings
    return begun


def _list(order: Order, corpus: Corpus, done: dict[int, dict[str, int]]) -> Mark:
    """The manifest: it is there once every part is."""
    total = total_of(done, corpus)
    parts = [
        {
            "file": part(order.out, block).name,
            "first": block.first,
            "items": block.count,
            **done[block.number],
        }
        for block in corpus.blocks
    ]
    manifest = {"settings": order.settings, "rows": total.rows, "errors": total.errors, "parts": parts}
    write_whole(order.out / MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
    bad = f", {counted(total.errors, 'bad item')} left out (_part-*.errors.jsonl)" if total.errors else ""
    say(f"{order.out}: {counted(total.rows, 'row')} in {counted(len(parts), 'file')}{bad}")
    return total


def _clear(out: Path) -> None:
    """It may be ended in between: what says that all is there goes first, what says whose it is last."""
    (out / MANIFEST).unlink(missing_ok=True)
    found = [path for path in out.iterdir() if path.name.startswith(OURS)]
    for path in sorted(found, key=lambda path: (path.name == RECORD, path.suffix != ".parquet")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _finished(order: Order, block: Block) -> dict[str, int] | None:
    """The summary of its part, if that is this job's."""
    work = work_of(order.out, block)
    if not (work.out.exists() and work.record.exists()):
        return None
    record = orjson.loads(work.record.read_bytes())
    summary: dict[str, int] | None = record.get("summary")
    return None if difference(record["settings"], settings_for(order, block)) else summary
