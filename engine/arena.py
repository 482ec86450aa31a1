"""Shared memory between the server and its engine processes: pixels are written once and never sent.

A request carries (offset, bytes, generation) of each visual instead of its pixels, so an image that
stands in a hundred prompts is copied once. Blocks are kept by content while there is room (least
recently used goes first) and pinned while a request may read them.

Nothing is ever read wrong: a block starts with its generation, and the reader checks it before and
after it copies (`model/pixels.py`). The file never has a name, so a kill -9 leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import mmap
import os
import tempfile
from bisect import bisect
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qvl.engine.errors import ConfigError, TooLarge
from qvl.engine.metrics import Metrics

if TYPE_CHECKING:
    from qvl.engine.media import Visual

HEADER = 64
"""Bytes before the pixels of a block; the first eight are its generation. As in `model/pixels.py`."""
GRACE_SECONDS = 30.0
"""How long the blocks of an aborted request stay: the engine may be in the middle of a step."""
_SHARED = "/dev/shm"
_log = logging.getLogger("qvl.engine")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the engine finds a visual's pixels."""

    offset: int
    nbytes: int
    generation: int


@dataclass(slots=True, eq=False)
class Block:
    place: Place
    size: int
    """Bytes with the header, a multiple of HEADER."""
    pins: int = 0


class Arena:
    """Belongs to one event loop. `size` bytes are allocated at once, in /dev/shm if it has the room."""

    def __init__(self, size: int, metrics: Metrics) -> None:
        self.size = size
        self._lookup = metrics.lookup("pixels")
        self._handle: int | None = _create(size)
        self._memory = mmap.mmap(self._handle, size)
        self._bytes = np.frombuffer(self._memory, dtype=np.uint8)
        self._blocks: OrderedDict[str, Block] = OrderedDict()
        """By content, least recently used first."""
        self._holes = [(0, size)]
        """(offset, size) of what no block has, by offset, never two side by side."""
        self._generations = itertools.count(1)
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @property
    def path(self) -> Path:
        """Where the engines open it while they start."""
        return Path(f"/proc/{os.getpid()}/fd/{self._handle}")

    def close(self) -> None:
        """Once every engine has it open; what is mapped stays. Harmless twice."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    async def pin(self, visuals: Sequence[Visual]) -> list[Block]:
        """Pixels of all of them in place until `unpin`; waits its turn while there is no room.

        Raises TooLarge for what would never have it.
        """
        sizes = {v.digest: _rounded(v.pixels.nbytes) for v in visuals}
        if sum(sizes.values()) > self.size:
            raise TooLarge(
                f"the decoded media of one prompt take {sum(sizes.values())} bytes, and the engine shares "
                f"{self.size} (media_memory): send fewer or smaller ones",
                code="media_too_large",
            )
        async with self._turn:
            for digest in sizes:
                self._lookup(digest in self._blocks)
            while not self._place(visuals):
                if not any(block.pins for block in self._blocks.values()):
                    # Nobody will give back anything: some of theirs are in, and leave the room in pieces.
                    self._blocks.clear()
                    self._holes = [(0, self.size)]
                    continue
                self._freed.clear()
                await self._freed.wait()
            blocks = [self._blocks[v.digest] for v in visuals]
            for block in blocks:
                block.pins += 1
            return blocks

    def _place(self, visuals: Sequence[Visual]) -> bool:
        """All of them in memory, or False; those that are in already are not thrown out for the others."""
        wanted = {v.digest for v in visuals}
        for visual in visuals:
            if visual.digest in self._blocks:
                self._blocks.move_to_end(visual.digest)
                continue
            size = _rounded(visual.pixels.nbytes)
            offset = self._room(size, wanted)
            if offset is None:
                return False
            self._write(offset, size, visual)
        return True

    def _room(self, size: int, wanted: set[str]) -> int | None:
        while (offset := self._take(size)) is None:
            victim = next((d for d, b in self._blocks.items() if not b.pins and d not in wanted), None)
            if victim is None:
                return None
            block = self._blocks.pop(victim)
            self._give(block.place.offset, block.size)
        return offset

    def _take(self, size: int) -> int | None:
        """The start of the first hole of at least `size`."""
        for place, (offset, room) in enumerate(self._holes):
            if room >= size:
                rest = [(offset + size, room - size)] if room > size else []
                self._holes[place : place + 1] = rest
                return offset
        return None

    def _give(self, offset: int, size: int) -> None:
        """Becomes a hole, one with those beside it."""
        place = bisect(self._holes, (offset, 0))
        after = self._holes[place : place + 1]
        if after and after[0][0] == offset + size:
            size += self._holes.pop(place)[1]
        if place and sum(self._holes[place - 1]) == offset:
            place -= 1
            offset, size = self._holes[place][0], self._holes.pop(place)[1] + size
        self._holes.insert(place, (offset, size))

    def _write(self, offset: int, size: int, visual: Visual) -> None:
        generation = next(self._generations)
        header = self._bytes[offset : offset + 8].view(np.int64)
        header[0] = 0
        start = offset + HEADER
        self._bytes[start : start + visual.pixels.nbytes] = visual.pixels.reshape(-1)
        header[0] = generation
        self._blocks[visual.digest] = Block(Place(offset, visual.pixels.nbytes, generation), size)

    def unpin(self, blocks: Sequence[Block], *, read: bool = True) -> None:
        """`read`: no engine is at it any more; else they stay for GRACE_SECONDS."""
        if not read:
            asyncio.get_running_loop().call_later(GRACE_SECONDS, self.unpin, blocks)
            return
        for block in blocks:
            block.pins -= 1
        self._freed.set()


def _rounded(nbytes: int) -> int:
    return -(-(nbytes + HEADER) // HEADER) * HEADER


def _create(size: int) -> int:
    """A nameless file of `size` allocated bytes: a hole would be a crash on the day the memory runs out."""
    for folder in (_SHARED, tempfile.gettempdir()):
        with suppress(OSError):
            handle, name = tempfile.mkstemp(prefix="qvl-pixels-", dir=folder)
            Path(name).unlink()
            try:
                os.posix_fallocate(handle, 0, size)
            except OSError:
                os.close(handle)
                continue
            if folder != _SHARED:
                said = "%s has no room for %d MiB of pixels (media_memory), which go through %s, slower; "
                said += "a container is given it by --shm-size"
                _log.warning(said, _SHARED, size >> 20, folder)
            return handle
    raise ConfigError(
        f"no room for {size} bytes of shared pixels in /dev/shm or the temporary folder: lower media_memory"
    )
