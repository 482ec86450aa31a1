"""The files that a replica's metrics are written to, as prometheus_client names and maps them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

_KINDS = ("counter", "histogram", "gauge_livesum", "gauge_livemax")
"""A file for each kind of metric that `Metrics` has, and for each way to add up its gauges."""
_BYTES = 1 << 20
"""Of a file: 5 000 series. A route has some hundreds, a key a few."""


def take_room(folder: Path, number: int) -> None:
    """For those of a replica: a hole in one would be a crash on the day the disk is full. Raises OSError."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for file in _files(folder, number):
        with file.open("ab") as opened:
            now = os.fstat(opened.fileno())
            if now.st_blocks * 512 < max(now.st_size, _BYTES):
                os.posix_fallocate(opened.fileno(), 0, max(now.st_size, _BYTES))


def keep(folder: Path) -> None:
    """While this process lives: what cleans temporary folders leaves alone what is locked."""
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)


def forget_gauges(folder: Path, number: int) -> None:
    """Those of a replica that has ended; their file keeps its room for the next one."""
    for file in _files(folder, number):
        if file.stem.startswith("gauge") and file.exists():
            with file.open("r+b") as opened:
                opened.write(bytes(8))  # how much of it is in use


def _files(folder: Path, number: int) -> list[Path]:
    return [folder / f"{kind}_{number}.db" for kind in _KINDS]
