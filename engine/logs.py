"""What a server writes to stderr: lines for people, or a JSON object a line for those who collect them.

No line holds what was asked or answered. What belongs to one request has its id.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import orjson

from qvl.engine.config import ServerConfig

FIELDS = "fields"
"""`log(..., extra={FIELDS: {...}})`: what a JSON line has beside its message."""
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


def log_to_stderr(config: ServerConfig, replica: int | None = None) -> None:
    """`replica`: its number, where there are several."""
    handler = logging.StreamHandler()
    if config.log_format == "json":
        handler.setFormatter(JsonLines(replica))
    else:
        who = "" if replica is None else f"[{replica}]"
        handler.setFormatter(logging.Formatter(_TEXT.format(who=who)))
    for name, threshold in (("qvl", config.log_level.upper()), ("uvicorn", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(threshold)
