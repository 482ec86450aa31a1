"""PDFs among an input's files: each page is an item, named `report.pdf#page=3` and sent alone.

The server draws it (`media/pdf.py`). Here pages are counted, and cut out in a millisecond each, by the same
library in a process of its own (`cutter.py`).
"""

from __future__ import annotations

import atexit
import json
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from qvl.engine import fragments
from qvl.engine.config import Limits
from qvl.engine.errors import BadRequest, QvlError, short
from qvl.engine.jobs.cutter import SECONDS
from qvl.engine.machine import foreign_environment

SUFFIX = ".pdf"
MOST_PAGES = 10_000
"""Of one file whose pages are items: a small file can claim any number."""
MOST_ENDED = 3
"""Processes that one file may cost, each of them up to 10 s: it may have thousands of pages."""
_WHEN = re.compile(rb"\(D:[0-9]{14}[^()]{0,8}\)")
_ID = re.compile(rb"<[0-9A-F]{32}><[0-9A-F]{32}>")
_HEAD, _TRAILER = 512, 256
"""Bytes of a file that PDFium has written where it says when, and calls it by a random name."""


def parted(path: Path) -> tuple[Path, int]:
    """The file, and the page that `path` names of it, from 1 (0: none), as the server reads it. Raises
    BadRequest."""
    file, end = fragments.parted(path)
    try:
        return file, fragments.page_of(end) if file.suffix.lower() == SUFFIX else 0
    except QvlError as error:
        raise BadRequest(f"{short(path.name)}: {error.message}", code=error.code) from None


def names_of(path: Path, name: str) -> list[str]:
    """`name` once for each page. Of what cannot be counted once alone: `check` tells its reader why."""
    if path.suffix.lower() != SUFFIX:
        return [name]
    try:
        return [f"{name}#page={page}" for page in range(1, _count(path) + 1)]
    except BadRequest:
        return [name]


def check(path: Path) -> None:
    """Of what `names_of` has left whole. Raises BadRequest where that is a PDF."""
    if path.suffix.lower() == SUFFIX:
        _count(path)


def _count(path: Path) -> int:
    count = int(_cutter.ask(path, 0)[0]["count"])
    if count > MOST_PAGES:
        raise BadRequest(
            f"{short(path.name)} has {count:,} pages; at most {MOST_PAGES:,}", code="too_many_pages"
        )
    return count


def cut_page(path: Path, page: int) -> bytes:
    """A PDF of that page alone, the same bytes each time. Raises BadRequest."""
    data = _cutter.ask(path, page)[1]
    end = max(0, len(data) - _TRAILER)
    data = data[:end] + _ID.sub(_blank, data[end:], 1)
    return _WHEN.sub(_blank, data[:_HEAD], 1) + data[_HEAD:]


def _blank(found: re.Match[bytes]) -> bytes:
    """As long as it was: places in the file are counted."""
    return re.sub(rb"[0-9A-F]", b"0", found[0])


class _Cutter:
    """The process of `cutter.py`: started when it is first asked, and again when a file has ended it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = Counter[Path]()

    def ask(self, path: Path, page: int) -> tuple[dict[str, Any], bytes]:
        """Raises BadRequest, which names the file."""
        with self._lock:
            if self._ended[path] >= MOST_ENDED:
                told = (
                    f"{short(path.name)} has ended {MOST_ENDED} processes that read it; its rest is left out"
                )
                raise BadRequest(told, code="decoder_crashed")
            process = self._process = self._process or _started()
            assert process.stdin
            assert process.stdout
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps([str(path.absolute()), page]).encode() + b"\n")
                process.stdin.flush()
            line = process.stdout.readline()
            head = json.loads(line) if line.endswith(b"\n") else {}
            data = process.stdout.read(head.get("size", 0))
            if not head or len(data) < head.get("size", 0):
                self.close()
                self._ended[path] += 1
                head = {"wrong": _why(process.returncode), "code": "decoder_crashed"}
        if "wrong" in head:
            raise BadRequest(
                f"{short(path.name)}: {head['wrong']}", code=head.get("code", "undecodable_media")
            )
        return head, data

    def close(self) -> None:
        process, self._process = self._process, None
        if process:
            with suppress(BrokenPipeError), process:
                process.kill()


def _started() -> subprocess.Popen[bytes]:
    # -P: whatever lies in the working folder is not ours to import.
    command = [sys.executable, "-P", "-m", "qvl.engine.jobs.cutter", str(Limits().media_bytes)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=foreign_environment())


def _why(returncode: int) -> str:
    if returncode == -signal.SIGALRM:
        return f"to read the PDF took over {SECONDS} s"
    return "reading the PDF ended its process: it crashed, or took too much memory"


_cutter = _Cutter()
atexit.register(_cutter.close)
