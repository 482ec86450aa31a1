"""What of a range of bytes is free: first fit, neighbours joined; and what would have to go for more."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable
from typing import TypeAlias

Part: TypeAlias = tuple[int, int]
"""(offset, size)"""


class Holes:
    def __init__(self, size: int) -> None:
        self._size = size
        self._holes: list[Part] = [(0, size)]
        """By offset, never two side by side."""

    def take(self, size: int) -> int | None:
        """The start of the first hole of at least `size`."""
        for place, (offset, room) in enumerate(self._holes):
            if room >= size:
                rest = [(offset + size, room - size)] if room > size else []
                self._holes[place : place + 1] = rest
                return offset
        return None

    def give(self, offset: int, size: int) -> None:
        place, (offset, size), replaced = self._joined((offset, size))
        self._holes[place : place + replaced] = [(offset, size)]

    def would_hold(self, part: Part, size: int) -> bool:
        """Whether giving `part` makes a hole of `size`."""
        return self._joined(part)[1][1] >= size

    def _joined(self, part: Part) -> tuple[int, Part, int]:
        """The hole that `part` would make, where in the list, and how many of those there it takes in."""
        offset, size = part
        place, replaced = bisect(self._holes, (offset, 0)), 0
        after = self._holes[place : place + 1]
        if after and after[0][0] == offset + size:
            size += after[0][1]
            replaced += 1
        if place and sum(self._holes[place - 1]) == offset:
            place -= 1
            replaced += 1
            offset, size = self._holes[place][0], self._holes[place][1] + size
        return place, (offset, size), replaced

    def window(self, size: int, idle: Iterable[Part], kept: Iterable[Part]) -> tuple[int, int] | None:
        """(start, end) of `size` bytes that are free once the `idle` parts in it are, around the first such.

        `kept`: what stays. None: nowhere.
        """
        stays = sorted(kept)
        starts = [0, *(offset + length for offset, length in stays)]
        ends = [*(offset for offset, _ in stays), self._size]
        for offset, _ in idle:
            place = bisect(starts, offset) - 1
            if ends[place] - starts[place] >= size:
                start = min(offset, ends[place] - size)
                return start, start + size
        return None
