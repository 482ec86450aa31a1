"""Why an engine process did not start, in its own words.

vLLM tells who started it only that it failed; why stands in a traceback on stderr, among the lines of others.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FILE = "QVL_LAST_WORDS"
"""The file for them, while a process is started."""
_MOST = 400
"""Bytes of them that are told."""


@contextmanager
def heard() -> Iterator[Callable[[], str]]:
    """For processes that are started in it. Gives what ended the first that failed, in one line, or ""."""
    handle = os.memfd_create("qvl-last-words")
    path = os.environ[FILE] = f"/proc/{os.getpid()}/fd/{handle}"
    try:
        yield lambda: os.pread(handle, _MOST, 0).decode("utf-8", "replace").partition("\n")[0]
    finally:
        if os.environ.get(FILE) == path:  # or it is that of the next model already
            del os.environ[FILE]
        os.close(handle)


class LastWords(logging.Handler):
    """Keeps the first exception that vLLM logs, which is the cause: others follow from it."""

    def __init__(self, path: str) -> None:
        super().__init__(logging.ERROR)
        # Opened at once: later the number may be another file's.
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error and not self._told:
            self._told = True
            os.write(self._handle, f"{type(error).__name__}: {_first(error)}\n".encode(errors="replace"))


def _first(error: BaseException) -> str:
    """Line of what it says; of an assertion that says nothing, the line that it stands in."""
    said = str(error).strip() or traceback.extract_tb(error.__traceback__)[-1].line or ""
    return said.partition("\n")[0]
