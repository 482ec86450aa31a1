"""Which page of a PDF, or part of a film, a name says: one rule for the server, for jobs and for clients."""

from __future__ import annotations

import re

from qvl.engine.errors import Unprocessable
from qvl.engine.protocol import Source

NAMED = re.compile(r"(.+\.pdf)(#(?:[^/]*&)?page=[^/]*)", re.IGNORECASE | re.DOTALL)
"""The path of a PDF, and the end that names a page of it."""
_LONGEST = 256
"""Characters of a fragment that are looked at."""
_PAGE = re.compile(r"(?:.*&)?page=0*([1-9][0-9]{0,5})(?:&.*)?", re.DOTALL)


def refuse_times(source: Source) -> None:
    """Raises Unprocessable for what asks for a part of a film as browsers do (`a.mp4#t=10,20`):
    the whole one would be another answer."""
    if isinstance(source, str) and (at := source.find("#")) >= 0:
        fragment = source[at + 1 : at + 1 + _LONGEST].lower()
        if any(each.startswith("t=") for each in fragment.split("&")):
            raise Unprocessable(
                f"{source[at : at + 40]!r} names a part of a film, which cannot be chosen: "
                "cut the file, or send frames as images",
                code="part_of_video",
            )


def page_of(source: Source) -> int:
    """That a URL or a file's name has of a PDF, as readers of PDFs take it (`#page=3&zoom=100`); 0: none.

    Raises Unprocessable for what it says of a page and cannot be read: the first would be the wrong one.
    """
    if not isinstance(source, str) or (at := source.find("#")) < 0:
        return 0
    fragment = source[at + 1 : at + 1 + _LONGEST].lower()
    if not (said := sum(each.startswith("page=") for each in fragment.split("&"))):
        return 0
    found = _PAGE.fullmatch(fragment)
    if found is None or said > 1:
        raise Unprocessable(
            f"{source[at : at + 40]!r} names no page of a PDF: write #page=N, from 1 to 999999",
            code="no_such_page",
        )
    return int(found[1])
