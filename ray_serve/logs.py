"""A replica's lines: where Serve's own go, each with its level and its request, and none held back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler

from qvl.engine.config import ServerConfig

_serves = logging.getLogger("ray.serve")


def log_with_serve(config: ServerConfig) -> None:
    """On stderr, Serve would make of each of our lines an INFO of its own, of tracebacks too."""
    ours = logging.getLogger("qvl")
    ours.handlers, ours.propagate = _serves.handlers, False
    ours.setLevel(config.log_level.upper())


@contextmanager
def kept() -> Iterator[None]:
    """Around what imports vLLM, which configures logging and so closes every handler that is there.

    Serve's would gather lines for ever after and write none.
    """
    held = [(each, each.target) for each in _serves.handlers if isinstance(each, MemoryHandler)]
    try:
        yield
    finally:
        for handler, target in held:
            handler.setTarget(target)
