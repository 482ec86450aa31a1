"""What a replica is to be, on its way to its process: that one's standard input, a nameless file in memory.

Whole, however many keys there are, and never on a disk; nobody waits for who may be dead before he reads.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qvl.engine.config import ServerConfig

if TYPE_CHECKING:
    from qvl.engine.server import Starter


@dataclass(frozen=True)
class Orders:
    """What a replica is to be."""

    number: int
    config: ServerConfig
    metrics: Path
    start: Starter | None
    """Stands in for the real engine's start; importable by its name."""


@contextmanager
def written(orders: Orders) -> Iterator[int]:
    """The handle to start a replica's process with."""
    with os.fdopen(os.memfd_create("qvl-orders"), "wb") as file:
        pickle.dump(orders, file)
        file.seek(0)
        yield file.fileno()


def read() -> Orders:
    """Those of this process, once: engine processes inherit an empty input, not the keys."""
    orders = pickle.load(sys.stdin.buffer)
    assert isinstance(orders, Orders)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    return orders
