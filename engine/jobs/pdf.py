"""PDFs among an input's files: each page is an item, named `report.pdf#page=3` and sent alone.

The server draws it (`media/pdf.py`). Here pages are counted, and cut out in a millisecond each, by the same
library.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from qvl.engine.errors import BadRequest

SUFFIX = ".pdf"
_PAGE = re.compile(r"(.+\.pdf)#page=([1-9][0-9]{0,5})", re.IGNORECASE | re.DOTALL)
_WHEN = re.compile(rb"\(D:[0-9]{14}[^()]{0,8}\)")
_ID = re.compile(rb"<[0-9A-F]{32}><[0-9A-F]{32}>")
_HEAD, _TRAILER = 512, 256
"""Bytes of a file that PDFium has written where it says when, and calls it by a random name."""


def parted(path: Path) -> tuple[Path, int]:
    """The file, and the page that `path` names of it, from 1 (0: none)."""
    found = None if path.exists() else _PAGE.fullmatch(str(path))
    return (Path(found[1]), int(found[2])) if found else (path, 0)


def names_of(path: Path, name: str) -> list[str]:
    """`name` once for each page. Of what cannot be opened once alone: whoever reads it is told why."""
    if path.suffix.lower() != SUFFIX:
        return [name]
    try:
        import pypdfium2

        with pypdfium2.PdfDocument(path) as document:
            count = len(document)  # as it says
            document[count - 1].close()
            return [f"{name}#page={page}" for page in range(1, count + 1)]
    except (ImportError, OSError, RuntimeError, IndexError):  # PDFium's errors are RuntimeErrors
        return [name]


def page_of(path: Path, page: int) -> bytes:
    """A PDF of that page alone, the same bytes each time. Raises BadRequest."""
    try:
        import pypdfium2

        with pypdfium2.PdfDocument(path) as document, pypdfium2.PdfDocument.new() as alone:
            if page > len(document):
                raise BadRequest(f"{path} has {len(document)} pages, no page {page}", code="no_such_page")
            alone.import_pages(document, [page - 1])
            file = io.BytesIO()
            alone.save(file)
    except (ImportError, RuntimeError) as error:
        raise BadRequest(f"page {page} of {path} cannot be had: {error}", code="undecodable_media") from None
    data = file.getvalue()
    end = max(0, len(data) - _TRAILER)
    data = data[:end] + _ID.sub(_blank, data[end:], 1)
    return _WHEN.sub(_blank, data[:_HEAD], 1) + data[_HEAD:]


def _blank(found: re.Match[bytes]) -> bytes:
    """As long as it was: places in the file are counted."""
    return re.sub(rb"[0-9A-F]", b"0", found[0])
