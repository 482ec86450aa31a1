"""`qvl search add` and `qvl search ask`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shlex
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from qvl.engine.client import AsyncClient
from qvl.engine.client.items import native
from qvl.engine.config import EngineConfig
from qvl.engine.dialects import search as dialect
from qvl.engine.dialects.fields import decode
from qvl.engine.jobs.answers import Answers, answering, models_of, settings_of
from qvl.engine.jobs.commands import stop_politely, until_stopped
from qvl.engine.jobs.files import most_of, refuse_others, with_files
from qvl.engine.jobs.lines import Line, fingerprint, read
from qvl.engine.jobs.pipeline import run
from qvl.engine.jobs.progress import counted, duration, exit_code, reporting, say, wrong
from qvl.engine.jobs.settings import JobConfig, JobError
from qvl.engine.jobs.work import write_whole
from qvl.engine.search import canary, ingest
from qvl.engine.search.index import Index, same_model
from qvl.engine.search.ingest import Indexing, Intake
from qvl.engine.search.searcher import Models, Searcher
from qvl.engine.search.served import Served
from qvl.engine.search.settings import AskConfig, Place, VectorConfig
from qvl.engine.start import start_engine

MANY = 1_000_000
"""Items of which a search in a folder takes 0.1 s and more."""
MOST_ROOTS = 4
"""Folders that are shown of those that an index refers to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One ingestion as the command line gave it."""

    source: Path
    place: Place
    kept: VectorConfig
    job: JobConfig
    engine: EngineConfig | None
    instruction: str | None


def add(order: Order) -> int:
    return until_stopped(_add(order), order.job)


async def _add(order: Order) -> int:
    stop_politely()
    lines, total = await asyncio.to_thread(_lines, order.source, most_of(order.engine))
    with closing(order.place.open(writable=True)) as index:
        await settings_of(order.job, order.engine, "embedder")  # raises when nobody would answer
        intake = await _filled(order, index, lines, total)
        held = len(index)
    _tell(order, intake, held)
    return exit_code(intake.mark.rows, intake.mark.errors, lambda: wrong(intake.errors[0]))


def _lines(source: Path, most: int) -> tuple[Iterable[Line], int]:
    if source.is_dir():
        return ingest.files(source, most)
    refuse_others(source)
    return (with_files(line, source.parent, most) for line in read(source)), fingerprint(source).lines


async def _filled(order: Order, index: Index, lines: Iterable[Line], total: int) -> Intake:
    kept = order.kept
    async with answering(order.job, order.engine) as answers:
        model, told = await _canary(answers)
        if order.job.overwrite:  # only now: models that do not start, or answer, cost nothing
            index.clear()
        layout = index.layout
        if layout:  # before anything is embedded in vain
            same_model(layout, model, told)
        dimensions = kept.dimensions or (layout.dimensions if layout else None)
        intake = Intake(
            index,
            canary=told,
            dtype=kept.vectors or (layout.dtype if layout else "int8"),
            prefix=kept.prefix or (layout.prefix if layout else None),
        )
        task = Indexing(answers, index, dimensions, order.instruction)
        started = time.monotonic()
        with reporting(total, intake.mark) as report:
            await run(task, lines, intake, order.job, report)
        seconds = time.monotonic() - started
    say(f"{counted(total, 'item')} in {duration(seconds)}, {total / max(seconds, 1e-9):,.1f}/s")
    return intake


async def _canary(answers: Answers) -> tuple[str, str]:
    """The model's name, and what an index keeps of it."""
    result = await answers.embed([canary.CANARY], None, None)
    if error := result.errors.get(0):
        raise error
    return result.model, canary.written(result.vectors[0])


def _tell(order: Order, intake: Intake, held: int) -> None:
    new = intake.mark.rows - intake.unchanged
    say(f"{order.place.index}: {new:,} put, {intake.unchanged:,} were there before; {held:,} in all")
    # Qdrant has no folder.
    folder = Path(order.place.index or "")
    own = folder.is_dir()
    if own and held > MANY:
        say(f"warning: each search compares all {held:,} items; for more than {MANY:,} take Qdrant (--index)")
    source = order.source.resolve()
    if intake.folders:
        _tell_roots({source} if source.is_dir() else intake.folders)
    # Not beside the source, which may be another's, or pictures.
    digits = hashlib.sha256(bytes(source)).hexdigest()[:6]  # of several sources of one name
    path = (folder if own else Path.cwd()) / f"{source.name}.{digits}.errors.jsonl"
    if intake.errors:
        write_whole(path, b"".join(orjson.dumps(each) + b"\n" for each in intake.errors))
        told = "them" if len(intake.errors) == intake.mark.errors else f"the first {len(intake.errors):,}"
        say(f"{counted(intake.mark.errors, 'bad line')} left out; what was wrong with {told}: {path}")
    elif own:
        path.unlink(missing_ok=True)


def _tell_roots(folders: set[Path]) -> None:
    if found := ingest.highest(folders):
        roots = " ".join(f"--file-roots {shlex.quote(str(each))}" for each in found[:MOST_ROOTS])
        more = f" and {counted(len(found) - MOST_ROOTS, 'more folder')}" if found[MOST_ROOTS:] else ""
        say(f"the index refers to the files there: serve it with {roots}{more}")


def drop(ids: Sequence[str], place: Place) -> int:
    place.open().close()  # it must be there: to write would make it
    with closing(place.open(writable=True)) as index:
        gone = index.remove(ids)
        say(f"{place.index}: {gone:,} of {len(ids):,} taken out; {len(index):,} in all")
    return 0


def question(text: str | None, image: str | None, video: str | None) -> dict[str, Any]:
    """The query as an item; a medium is a file here unless it looks like a URL."""
    media = {"image": image, "video": video}
    query: dict[str, Any] = {
        kind: given if "://" in given or given.startswith("data:") else Path(given)
        for kind, given in media.items()
        if given is not None
    }
    if text is not None:
        query["text"] = text
    if not query:
        raise JobError("nothing to look for: give a text, --image or --video")
    return query


def ask(
    query: dict[str, Any], place: Place, asked: AskConfig, url: str | None, key: str | None,
    engine: EngineConfig | None,
) -> int:  # fmt: skip
    body = {
        "query": native(query, "query"),
        "top_n": asked.top_n,
        "recall": asked.recall,
        "filter": _filter(asked.filter),
        "rerank": asked.rerank,
        "instruction": asked.instruction,
    }
    answer = asyncio.run(_asked(body, place, url, key, engine))
    from qvl.engine.search.show import show

    show(answer, as_json=asked.json)
    return 0


async def _asked(
    body: dict[str, Any], place: Place, url: str | None, key: str | None, engine: EngineConfig | None
) -> dict[str, Any]:
    """By the server's index, or by one that lies here."""
    if place.index is None:
        if url is None:
            raise JobError("nothing to search: give --index, or --url of a server that has one")
        await models_of(url, key)  # says at once when there is no server, and waits for one that starts
        async with AsyncClient(url, key=key) as client:
            return await client.search_reply(body)
    parsed = decode(dialect.SearchBody, orjson.dumps(body))
    request = dialect.parse(parsed)
    with closing(place.open()) as index:
        async with _models(url, key, _needed(engine, body["rerank"])) as models:
            result = await Searcher(models, index).search(request)
            return dict(dialect.render(parsed, result))


def _needed(engine: EngineConfig | None, rerank: bool | None) -> EngineConfig | None:
    """A reranker that will not be asked need not be loaded."""
    if engine is None or rerank is not False or engine.embedder is None:
        return engine
    return replace(engine, reranker=None)


@asynccontextmanager
async def _models(url: str | None, key: str | None, engine: EngineConfig | None) -> AsyncIterator[Models]:
    if url is not None:
        cards = await models_of(url, key)
        async with AsyncClient(url, key=key) as client:
            yield Served(client, cards)
        return
    if engine is None:
        raise JobError("no model: give --embedder and --reranker a checkpoint, or --url a running server")
    say("loading the models")
    async with await start_engine(engine) as running:
        yield running


def _filter(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise JobError(f"--filter is not JSON: {error}") from None
