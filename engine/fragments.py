"""What stands behind the # of a name, a page of a PDF or a part of a film: one rule for the server, for jobs
and for clients."""

from __future__ import annotations

import re
from math import inf
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from qvl.engine.errors import Unprocessable
from qvl.engine.magic import VIDEO_SUFFIXES
from qvl.engine.protocol import Source

_FILM = "|".join(map(re.escape, VIDEO_SUFFIXES))
NAMED = re.compile(
    rf"(.+(?:\.pdf(?=#(?:[^/]*&)?page=)|(?:{_FILM})(?=#(?:[^/]*&)?t=)))(#[^/]*)", re.IGNORECASE | re.DOTALL
)
"""The path of a PDF or a film, and the end that names a page or a part of it."""
_LONGEST = 256
"""Characters of a fragment that are looked at."""
_PAGE = re.compile(r"(?:.*&)?page=0*([1-9][0-9]{0,5})(?:&.*)?", re.DOTALL)
_TIME = re.compile(r"(?:(?:([0-9]{1,3}):)?([0-5]?[0-9]):)?([0-9]{1,6}(?:\.[0-9]{0,9})?)")


class Span(NamedTuple):
    """Seconds of a film; None: its own beginning or end."""

    start: float | None = None
    end: float | None = None


def parted(path: Path) -> tuple[Path, str]:
    """The file, and the end of its name that says a page or a part of it; a file of the whole name wins."""
    found = NAMED.fullmatch(str(path))
    return (path, "") if found is None or path.exists() else (Path(found[1]), found[2])


def span_of(source: Source) -> Span:
    """The part of a film that a URL or a file's name asks for, as browsers take it: `#t=10,20.5`, `#t=1:30`.

    Raises Unprocessable for what it says of a time and cannot be read: the whole film would be wrong.
    """
    parts = _fragment(source, whole=True)
    said = [unquote(each[2:]).removeprefix("npt:") for each in parts if each.startswith("t=")]
    if not said:
        return Span()
    start, comma, end = said[0].partition(",")
    span = Span(_seconds(start), _seconds(end))
    unread = (span.start is None and start) or (span.end is None and (end or comma))
    empty = (span.start or 0) >= (inf if span.end is None else span.end)
    if len(said) > 1 or unread or empty or span == Span():
        raise Unprocessable(
            f"{'#t=' + said[0][:40]!r} names no part of a film: write #t=START,END in seconds, as "
            "#t=10,20.5, or one of them, as #t=10 or #t=,20.5",
            code="no_such_part",
        )
    return span


def _seconds(text: str) -> float | None:
    if (found := _TIME.fullmatch(text)) is None:
        return None
    hours, minutes, seconds = (float(each or 0) for each in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def page_of(source: Source) -> int:
    """That a URL or a file's name has of a PDF, as readers of PDFs take it (`#page=3&zoom=100`); 0: none.

    Raises Unprocessable for what it says of a page and cannot be read: the first would be the wrong one.
    """
    parts = _fragment(source)
    if not (said := sum(each.startswith("page=") for each in parts)):
        return 0
    fragment = "&".join(parts)
    found = _PAGE.fullmatch(fragment)
    if found is None or said > 1:
        raise Unprocessable(
            f"{'#' + fragment[:39]!r} names no page of a PDF: write #page=N, from 1 to 999999",
            code="no_such_page",
        )
    return int(found[1])


def _fragment(source: Source, *, whole: bool = False) -> list[str]:
    """What stands behind the first `#`, in parts."""
    if not isinstance(source, str) or (at := source.find("#")) < 0:
        return []
    if whole and len(source) - at - 1 > _LONGEST:
        raise Unprocessable(f"what stands behind the # has over {_LONGEST} characters", code="no_such_part")
    return source[at + 1 : at + 1 + _LONGEST].lower().split("&")
