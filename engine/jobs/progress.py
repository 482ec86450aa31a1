"""How far a job is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import orjson

from qvl.engine.jobs.work import Mark

PLAIN_SECONDS = 10.0


def exit_code(rows: int, errors: int, first: Callable[[], str]) -> int:
    """Bad lines are no failure as long as one is good. `first`: what is wrong with the first of them."""
    if rows or not errors:
        return 0
    told = first()
    say(f"no line is good; {told}" if told else "no line is good")
    return 1


def wrong(record: dict[str, Any]) -> str:
    """An error's record in words."""
    line, error = f"line {record['line']}", record["error"]
    message, about = error["message"], error["param"] or ""
    if message.startswith(line):
        return str(message)
    return f"{line}: {message}" if message.startswith(about) else f"{line} {about}: {message}"


def first_wrong(errors: Sequence[Path]) -> str:
    """Of files of such records, which their reader may have changed since: then nothing."""
    try:
        with errors[0].open("rb") as file:
            return wrong(orjson.loads(file.readline()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class Report(Protocol):
    def __call__(self, mark: Mark) -> None: ...


@contextmanager
def reporting(total: int, begun: Mark) -> Iterator[Report]:
    """`begun` is where this run goes on; the rate counts only what this run does."""
    with (_bar if sys.stderr.isatty() else _plain)(total, begun) as report:
        yield report


@contextmanager
def _bar(total: int, begun: Mark) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("lines", total=total, completed=begun.lines, rate="")

        def report(mark: Mark) -> None:
            rate = (mark.lines - begun.lines) / max(time.monotonic() - started, 1e-9)
            progress.update(bar, completed=mark.lines, rate=f"{rate:,.1f}/s{_bad(mark)}")

        yield report


@contextmanager
def _plain(total: int, begun: Mark) -> Iterator[Report]:
    started = said = time.monotonic()

    def report(mark: Mark) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < PLAIN_SECONDS:
            return
        said = now
        rate = max(mark.lines - begun.lines, 1) / (now - started)
        left = duration((total - mark.lines) / rate)
        say(f"{mark.lines:,} of {counted(total, 'line')}, {rate:,.1f}/s, {left} left{_bad(mark)}")

    yield report


def say(text: str) -> None:
    sys.stderr.write(f"qvl: {text}\n")
    sys.stderr.flush()


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _bad(mark: Mark) -> str:
    return f", {mark.errors:,} bad" if mark.errors else ""
