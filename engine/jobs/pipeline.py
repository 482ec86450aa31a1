"""Lines in, rows out, in order: some batches under way at once, one commit about every second."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeAlias, TypeVar

import orjson

from qvl.engine.errors import (
    MEDIA_NOT_BEGUN,
    BadRequest,
    DeadlineExceeded,
    QvlError,
    TooLarge,
    Unprocessable,
    UnsupportedMedia,
    short,
)
from qvl.engine.jobs.lines import BATCH_BYTES, Line, batches, size_of
from qvl.engine.jobs.progress import wrong
from qvl.engine.jobs.settings import JobConfig, JobError
from qvl.engine.jobs.tasks import MOST_OF_AN_ID, Parsed, Task, own_id, parse
from qvl.engine.jobs.work import Mark

R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)

Record: TypeAlias = Callable[[Line, QvlError], dict[str, Any]]

HELD_BYTES = 8 * BATCH_BYTES
"""Of the lines under way at once, their files included, where more than one batch is."""

COMMIT_SECONDS = 1.0
"""Work that a kill may cost; each commit waits for the disk."""

OF_A_LINE = (BadRequest, TooLarge, UnsupportedMedia, Unprocessable, DeadlineExceeded)
"""Errors that the next line need not have."""

LINE_PARAMS = frozenset({"", "input", "query", "documents", "id", "instruction", "top_n"})
"""What such an error names when it is about a line; another name (`dimensions`) is about the job."""


class Sink(Protocol[R_contra]):
    """Where the answers go; nothing counts before `commit`."""

    @property
    def mark(self) -> Mark: ...

    def append(self, row: R_contra) -> None: ...

    def append_error(self, record: dict[str, Any]) -> None: ...

    def advance(self, index: int, offset: int, lines: int) -> None: ...

    def commit(self) -> None: ...


async def run(
    task: Task[R],
    lines: Iterable[Line],
    work: Sink[R],
    job: JobConfig,
    report: Callable[[Mark], None],
    record: Record | None = None,
) -> None:
    """Answer the lines, which are those from the last commit on. `record`: how bad ones are told."""
    todo = batches(lines, task.most or job.batch)
    window: deque[tuple[list[Line], asyncio.Task[list[R | QvlError]]]] = deque()
    committed = time.monotonic()
    try:
        while True:
            batch = await asyncio.to_thread(next, todo, None)
            if batch is not None:
                window.append((batch, asyncio.create_task(answer(task, batch))))
            while window and (batch is None or len(window) == job.in_flight or _held(window) > HELD_BYTES):
                asked, answered = window.popleft()
                settle(work, asked, await answered, job, record or told)
                report(work.mark)
                if batch is None:
                    break
            if time.monotonic() - committed > COMMIT_SECONDS or (batch is None and not window):
                await to_its_end(work.commit)
                committed = time.monotonic()
            if batch is None and not window:
                return
    except (QvlError, JobError, asyncio.CancelledError):
        work.commit()
        raise
    finally:
        for _, under_way in window:
            under_way.cancel()
        await asyncio.gather(*(under_way for _, under_way in window), return_exceptions=True)


def _held(window: Iterable[tuple[list[Line], Any]]) -> int:
    return sum(size_of(batch) for batch, _ in window)


async def to_its_end(write: Callable[..., None], *given: Any) -> None:
    """In a thread, and even when the job is stopped meanwhile: what is written next must not meet it."""
    under_way = asyncio.create_task(asyncio.to_thread(write, *given))
    try:
        await asyncio.shield(under_way)
    except asyncio.CancelledError:
        await under_way
        raise


async def answer(task: Task[R], batch: Sequence[Line]) -> list[R | QvlError]:
    """One row or error a line; raises what is not the fault of a line."""
    parsed = [_parsed(line) for line in batch]
    lines = [each for each in parsed if isinstance(each, Parsed)]
    outcomes = await _answered(task, lines)
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome, QvlError) and outcome.code == MEDIA_NOT_BEGUN and len(lines) > 1:
            (outcomes[place],) = await _answered(task, [lines[place]])
    answered = iter(outcomes)
    return [next(answered) if isinstance(each, Parsed) else each for each in parsed]


def _parsed(line: Line) -> Parsed | QvlError:
    try:
        return parse(line)
    except QvlError as error:
        return error


async def _answered(task: Task[R], lines: list[Parsed]) -> list[R | QvlError]:
    if not lines:
        return []
    try:
        return await task.answer(lines)
    except OF_A_LINE as error:
        if re.split(r"[.\[]", error.param or "")[0] not in LINE_PARAMS:
            raise
        if len(lines) == 1:
            return [error]
    # A line that cannot even be parsed fails its whole request; asked alone, the others are answered.
    alone = await asyncio.gather(*(_answered(task, [line]) for line in lines))
    return [outcome for outcomes in alone for outcome in outcomes]


def settle(
    work: Sink[R], lines: Sequence[Line], outcomes: Sequence[R | QvlError], job: JobConfig, record: Record
) -> None:
    """All of a batch or nothing: what was settled may be committed at any time."""
    records = [
        record(line, outcome) if isinstance(outcome, QvlError) else None
        for line, outcome in zip(lines, outcomes, strict=True)
    ]
    if job.on_error == "fail" and (bad := next(filter(None, records), None)):
        raise JobError(f"{wrong(bad)} (--on-error skip leaves bad lines out)")
    for outcome, entry in zip(outcomes, records, strict=True):
        if isinstance(outcome, QvlError):
            work.append_error(entry or {})
        else:
            work.append(outcome)
    work.advance(lines[-1].index + 1, lines[-1].end, len(lines))


def told(line: Line, error: QvlError) -> dict[str, Any]:
    """An error in terms of the file: not `input[3].image` of some request, but `image` of line 8."""
    number = line.index + 1
    body = error.entry()
    body["message"] = re.sub(r"(?<![\w.])input\[\d+\]", f"line {number}", error.message)
    body["param"] = re.sub(r"^input\[\d+\]\.?", "", error.param or "") or None
    own = None
    with suppress(ValueError, AttributeError):
        own = own_id(orjson.loads(line.data))
    if isinstance(own, str):
        own = short(own, MOST_OF_AN_ID)
    return {"index": line.index, "line": number, "id": line.index if own is None else own, "error": body}
