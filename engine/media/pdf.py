"""A page of a PDF as the picture that the model reads.

PDFium (pypdfium2) draws it at the 200 dots an inch that pdf2image and scanners take; the reference's resize
follows, as for any picture. Scripts are not run and nothing outside the file is read: this build has neither.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from PIL import Image

from qvl.engine.config import Limits
from qvl.engine.errors import Unprocessable, UnsupportedMedia

try:
    import pypdfium2
    from pypdfium2 import raw
except ImportError:
    pypdfium2 = None

DOTS_PER_INCH = 200
PAGE_SECONDS = 10.0
"""To draw a page: tenths of a second as a rule, and without end where a few hundred bytes ask for it."""
_POINTS_PER_INCH = 72
_FAR = 1e7
"""Points; no page is as large."""
_SMALLER = 0.9
# It warns of forms (XFA) that stand beside those it draws.
logging.getLogger("pypdfium2").setLevel(logging.ERROR)
_MAGIC, _WITHIN = b"%PDF-", 1024
"""Readers find the head behind so much else."""


def is_pdf(data: bytes) -> bool:
    return _MAGIC in data[:_WITHIN]


def draw(data: bytes, page: int, limits: Limits) -> Image.Image:
    """RGB. `page` from 1; 0 where the caller named none, which only one of a single page needs not.

    Raises Unprocessable or UnsupportedMedia.
    """
    with _opened(data) as document:
        count = len(document)
        if page > count or (page == 0 and count > 1):
            asked = f"no page {page}" if page else "and none was named"
            raise Unprocessable(
                f"the PDF has {count} pages, {asked}: name one at the end of its URL, as #page=1",
                code="no_such_page",
            )
        try:
            drawn = document[max(page, 1) - 1]
            if not all(drawn.get_size()):  # it is cut to nothing
                drawn.set_cropbox(-_FAR, -_FAR, _FAR, _FAR)
            width, height = drawn.get_size()
            scale = _scale(width, height, limits.image_pixels)
            picture: Image.Image = drawn.render(scale=scale).to_pil().convert("RGB")
            return picture
        except (pypdfium2.PdfiumError, ValueError, OverflowError, MemoryError) as error:
            raise _broken(f"this page of the PDF cannot be drawn ({str(error)[:120]})") from error


def _scale(width: float, height: float, most: int) -> float:
    """Pixels a point, so that sides that are rounded up, to one at least, hold `most` pixels."""
    scale = DOTS_PER_INCH / _POINTS_PER_INCH
    while math.ceil(width * scale) * math.ceil(height * scale) > most:
        scale *= _SMALLER
    return scale


def _opened(data: bytes) -> Any:
    if pypdfium2 is None:
        raise UnsupportedMedia(
            "this is a PDF: pip install pypdfium2 on the server, or send pictures of its pages"
        )
    try:
        document = pypdfium2.PdfDocument(data)
        document.init_forms()  # before anything else is asked of it, or what fields hold is not drawn
        return document
    except pypdfium2.PdfiumError as error:
        # Of a file without pages it tells the error of one before.
        locked = error.err_code in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY) and b"/Encrypt" in data
        what = "locked by a password" if locked else "truncated, corrupt or without pages"
        raise _broken(f"the PDF is {what}") from error


def _broken(what: str) -> Unprocessable:
    return Unprocessable(f"{what}; send pictures of its pages", code="undecodable_media")
