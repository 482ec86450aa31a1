"""Where the pixels of one medium come: in the arena, or on the heap where that has no room."""

from __future__ import annotations

import numpy as np

from qvl.engine.media.arena import Arena
from qvl.engine.media.block import Block
from qvl.engine.media.visual import Pixels, Visual


class Landing:
    def __init__(self, arena: Arena | None) -> None:
        self._arena = arena
        self._block: Block | None = None

    def room(self, nbytes: int) -> Pixels:
        """Flat. A second time: what was in the first is not wanted."""
        self.drop()
        if self._arena is not None:
            self._block = self._arena.room(nbytes)
        if self._arena is None or self._block is None:
            return np.empty(nbytes, np.uint8)
        return self._arena.flat(self._block)

    def visual(self, come: Visual) -> Visual:
        """`come`, of pixels from `room`; or the one that others have."""
        block, self._block = self._block, None
        if self._arena is None or block is None:
            return come
        return self._arena.keep(block, come)

    def drop(self) -> None:
        if self._arena is not None and self._block is not None:
            self._arena.drop(self._block)
        self._block = None
