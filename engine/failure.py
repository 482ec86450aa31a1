"""What is told of an engine that did not start: one line, and whether another try may help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from qvl.engine.errors import CheckpointError, NotStarted, Unavailable
from qvl.engine.model.last_words import heard

_KILLED = re.compile(r"Failed core proc\(s\): \{[^}]*: -9\b")
"""In what vLLM says of engine processes that ended."""


@contextmanager
def starting(said: str) -> Iterator[None]:
    """Around the start of an engine process: what vLLM raises becomes what `not_started` says."""
    with heard() as cause:
        try:
            yield
        except (RuntimeError, ValueError, OSError, TypeError) as error:
            raise not_started(said, error, cause()) from error


def not_started(said: str, error: BaseException, cause: str = "") -> CheckpointError:
    """vLLM refuses settings by a ValueError; what may pass ends its process, which is a RuntimeError here.

    `cause`: what that process said last, if anything.
    """
    passing = isinstance(error, (RuntimeError, OSError, Unavailable))
    cause = cause or reason(error)
    if _KILLED.search(cause):
        cause = "its process was killed (signal 9): this machine, or its container, may be out of memory"
    return (NotStarted if passing else CheckpointError)(f"{said}: {cause}")


def reason(error: BaseException) -> str:
    """One line; of settings that vLLM refuses, which is pydantic's doing, what is wrong with the first."""
    from pydantic import ValidationError

    told = str(error)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        told = ": ".join((*map(str, first["loc"]), first["msg"].removeprefix("Value error, ")))
    return (told.strip() or type(error).__name__).splitlines()[0]
