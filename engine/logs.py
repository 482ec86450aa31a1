"""What a server writes to stderr: lines for people, or a JSON object a line for those who collect them.

No line holds what was asked or answered. What belongs to one request has its id. A thread writes them: who
logs never waits for whoever reads them.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson

from qvl.engine.config import ServerConfig

FIELDS = "fields"
"""`log(..., extra={FIELDS: {...}})`: what a JSON line has beside its message."""
MOST_WAITING = 4096
"""Lines that nobody has read yet; further ones are counted instead."""
_FLUSH_SECONDS = 0.5
"""For a line to be written at the end of the process; then nobody reads."""
_MOST_FLUSH_SECONDS = 1.0
"""For all of them."""
_AGAIN_SECONDS = 0.05
_TEXT = "%(asctime)s %(levelname)s %(name)s{who} %(message)s"


class JsonLines(logging.Formatter):
    def __init__(self, replica: int | None) -> None:
        super().__init__()
        self._own = {} if replica is None else {"replica": replica}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._own,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


class Written(logging.Handler):
    """Lines on their way to a file, in order.

    (`QueueHandler` prints a traceback, and so waits, when its queue is full; and a record that waits in one
    holds the frames of its error, with bodies and pixels.) The file is written past `sys.stderr`, whose lock
    a writer that hangs would hold when the interpreter ends.
    """

    def __init__(self, file: int = 2) -> None:
        super().__init__()
        self._file = file
        self._waiting: deque[bytes] = deque()
        """The first one is being written."""
        self._missing = 0
        """That came when there was no room, after those that wait."""
        self._change = threading.Condition()
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - as the handlers of the standard library do
            self.handleError(record)
            return
        with self._change:
            if self._missing or len(self._waiting) >= MOST_WAITING:
                self._missing += 1
            else:
                self._waiting.append(line)
            self._change.notify_all()

    def flush(self) -> None:
        """Returns when all is written, or nobody reads."""
        end = time.monotonic() + _MOST_FLUSH_SECONDS
        with self._change:
            while (left := self._left()) and time.monotonic() < end:
                if not self._change.wait_for(partial(self._fewer, left), _FLUSH_SECONDS):
                    return

    def _left(self) -> int:
        return len(self._waiting) + self._missing

    def _fewer(self, than: int) -> bool:
        return self._left() < than

    def _line(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode(errors="backslashreplace") + b"\n"

    def _write(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._missing)
                if not self._waiting:
                    self._waiting.append(self._count())
                    self._missing = 0
                line = self._waiting[0]
            with suppress(OSError):  # the reader has gone
                self._put(line)
            with self._change:
                self._waiting.popleft()
                self._change.notify_all()

    def _put(self, line: bytes) -> None:
        while line:
            try:
                line = line[os.write(self._file, line) :]
            except BlockingIOError:  # others who write to the same terminal have made it so
                time.sleep(_AGAIN_SECONDS)

    def _count(self) -> bytes:
        said = f"{self._missing} lines are missing here: nobody read them in time"
        return self._line(logging.LogRecord("qvl.log", logging.WARNING, "", 0, said, None, None))


def log_to_stderr(config: ServerConfig, replica: int | None = None) -> None:
    """`replica`: its number, where there are several."""
    handler = Written()
    if config.log_format == "json":
        handler.setFormatter(JsonLines(replica))
    else:
        who = "" if replica is None else f"[{replica}]"
        handler.setFormatter(logging.Formatter(_TEXT.format(who=who)))
    for name, threshold in (("qvl", config.log_level.upper()), ("uvicorn", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(threshold)
    atexit.register(flush)


def flush() -> None:
    """What was logged is written, so far as somebody reads it. `logging.shutdown` does not know our handlers
    any more once vLLM has configured logging."""
    for each in logging.getLogger("qvl").handlers:
        each.flush()
