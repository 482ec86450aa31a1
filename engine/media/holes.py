"""What of a range of bytes is free: first fit, neighbours joined."""

from __future__ import annotations

from bisect import bisect


class Holes:
    def __init__(self, size: int) -> None:
        self._holes = [(0, size)]
        """(offset, size) by offset, never two side by side."""

    def take(self, size: int) -> int | None:
        """The start of the first hole of at least `size`."""
        for place, (offset, room) in enumerate(self._holes):
            if room >= size:
                rest = [(offset + size, room - size)] if room > size else []
                self._holes[place : place + 1] = rest
                return offset
        return None

    def give(self, offset: int, size: int) -> None:
        place = bisect(self._holes, (offset, 0))
        after = self._holes[place : place + 1]
        if after and after[0][0] == offset + size:
            size += self._holes.pop(place)[1]
        if place and sum(self._holes[place - 1]) == offset:
            place -= 1
            offset, size = self._holes[place][0], self._holes.pop(place)[1] + size
        self._holes.insert(place, (offset, size))
