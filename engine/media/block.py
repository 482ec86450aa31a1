"""A visual's part of the shared memory."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

from qvl.engine.media.visual import Kind, Visual

HEADER = 64
"""Bytes before the pixels of a block; the first eight are its generation. As in `model/pixels.py`."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the engine finds a visual's pixels."""

    offset: int
    nbytes: int
    generation: int


@dataclass(slots=True, eq=False)
class Block:
    place: Place
    pins: int = 0
    """For engines that may read it, and for the thread that fills it."""
    view: weakref.ref[Visual] | None = None
    """Of the visual whose pixels are these very bytes, while somebody has it."""
    shape: tuple[int, ...] = ()
    kind: Kind = "image"
    timestamps: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        return rounded(self.place.nbytes)

    @property
    def part(self) -> tuple[int, int]:
        """(offset, size)"""
        return self.place.offset, self.size

    @property
    def filled(self) -> bool:
        return bool(self.shape)

    @property
    def name(self) -> str:
        """While it is being filled: no digest."""
        return f"-{self.place.generation}"

    @property
    def seen(self) -> Visual | None:
        return self.view() if self.view else None


def rounded(nbytes: int) -> int:
    """Bytes that so many pixels take there, header included."""
    return -(-(nbytes + HEADER) // HEADER) * HEADER
