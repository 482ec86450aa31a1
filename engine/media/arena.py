"""Shared memory of the server and its engine processes: decoded pixels are received into it and never sent.

A request carries (offset, bytes, generation) of each visual instead of its pixels, so an image that stands in
a hundred prompts lies here once. Blocks are kept by content while there is room, pinned while a request may
read them, and are the cache of what was decoded: who finds one need not decode it. Where the room is taken,
pixels wait on the heap until their prompt is sent, and those of a prompt that waits longer make way for them.

Nothing is ever read wrong: a block starts with its generation, and the reader checks it before and
after it copies (`model/pixels.py`). The file never has a name, so a kill -9 leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import itertools
import mmap
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np

from qvl.engine.errors import TooLarge
from qvl.engine.media.block import HEADER, Block, Place, rounded
from qvl.engine.media.holes import Holes
from qvl.engine.media.nameless import create
from qvl.engine.media.visual import Pixels, Visual

Lookup: TypeAlias = Callable[[bool], None]
"""Told of every look-up whether it was a hit."""

GRACE_SECONDS = 30.0
"""How long the blocks of an aborted request stay: the engine may be in the middle of a step."""


class Arena:
    """`size` bytes, allocated at once. `pin` and `unpin` are one event loop's, the rest any thread's."""

    def __init__(self, size: int, lookup: Lookup = lambda hit: None) -> None:
        """`lookup` is told whether pixels were in place when their prompt was sent."""
        self.size = size
        self._lookup = lookup
        self._handle: int | None = create(size)
        self._memory = mmap.mmap(self._handle, size)
        self._bytes = np.frombuffer(self._memory, dtype=np.uint8)
        self._lock = threading.Lock()
        self._blocks: OrderedDict[str, Block] = OrderedDict()
        """By content, least recently used first; one that is being filled by its `name`."""
        self._holes = Holes(size)
        self._generations = itertools.count(1)
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._waiting: asyncio.AbstractEventLoop | None = None

    @property
    def path(self) -> Path:
        """Where the engines open it while they start."""
        return Path(f"/proc/{os.getpid()}/fd/{self._handle}")

    def close(self) -> None:
        """Once every engine has it open; what is mapped stays. Harmless twice."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def find(self, digest: str) -> Visual | None:
        """What was decoded before; everybody gets the same one."""
        with self._lock:
            block = self._blocks.get(digest)
            if block is None:
                return None
            self._blocks.move_to_end(digest)
            return self._visual(block, digest)

    def room(self, nbytes: int) -> Block | None:
        """For pixels on their way, until `keep` or `drop`. None: somebody waits for whatever is here."""
        with self._lock:
            offset = self._offset(rounded(nbytes), frozenset(), spill=False)
            if offset is None:
                return None
            block = self._block(offset, nbytes)
            block.pins = 1
            self._blocks[block.name] = block
            return block

    def flat(self, block: Block) -> Pixels:
        """Its pixels."""
        start = block.place.offset + HEADER
        return self._bytes[start : start + block.place.nbytes]

    def keep(self, block: Block, visual: Visual) -> Visual:
        """`visual`, whose pixels have come into `block`; or the one that others have."""
        with self._lock:
            del self._blocks[block.name]
            block.pins = 0
            self._wake()
            known = self._blocks.get(visual.digest)
            if known is None:
                self._fill(block, visual)
                return visual
            # From the heap, meanwhile.
            self._holes.give(block.place.offset, block.size)
            return self._visual(known, visual.digest)

    def drop(self, block: Block) -> None:
        """What was to come into it will not."""
        with self._lock:
            self._evict(block.name)
            self._wake()

    async def pin(self, visuals: Sequence[Visual]) -> list[Block]:
        """Pixels of all of them in place until `unpin`; waits its turn while there is no room.

        Raises TooLarge for what would never have it.
        """
        sizes = {v.digest: rounded(v.pixels.nbytes) for v in visuals}
        if sum(sizes.values()) > self.size:
            raise TooLarge(
                f"the decoded media of one prompt take {sum(sizes.values())} bytes, and the engine shares "
                f"{self.size} (media_memory): send fewer or smaller ones",
                code="media_too_large",
            )
        async with self._turn:
            for digest in sizes:
                self._lookup(digest in self._blocks)
            while (blocks := self._pinned(visuals)) is None:
                await self._freed.wait()
            return blocks

    def unpin(self, blocks: Sequence[Block], *, read: bool = True) -> None:
        """`read`: no engine is at it any more; else they stay for GRACE_SECONDS."""
        if not read:
            asyncio.get_running_loop().call_later(GRACE_SECONDS, self.unpin, blocks)
            return
        for block in blocks:
            block.pins -= 1
        self._freed.set()

    def _pinned(self, visuals: Sequence[Visual]) -> list[Block] | None:
        """None: `_freed` will tell when to try again."""
        with self._lock:
            placed = self._place(visuals)
            if not placed and not any(block.pins for block in self._blocks.values()):
                # Nobody will give back anything: some of theirs are in, and leave the room in pieces.
                for digest in list(self._blocks):
                    self._evict(digest)
                placed = self._place(visuals)
            if not placed:
                self._waiting = asyncio.get_running_loop()
                self._freed.clear()
                return None
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
            offset = self._offset(rounded(visual.pixels.nbytes), wanted, spill=True)
            if offset is None:
                return False
            block = self._block(offset, visual.pixels.nbytes)
            self.flat(block)[:] = visual.pixels.reshape(-1)
            visual.move(self.flat(block).reshape(visual.pixels.shape))
            self._fill(block, visual)
        return True

    def _offset(self, size: int, wanted: Set[str], *, spill: bool) -> int | None:
        """`spill`: also the room of what somebody waits for, but no engine reads."""
        while (offset := self._holes.take(size)) is None:
            victim = self._idle(wanted, seen=False) or (self._idle(wanted, seen=True) if spill else None)
            if victim is None:
                return None
            self._evict(victim)
        return offset

    def _idle(self, wanted: Set[str], *, seen: bool) -> str | None:
        found = ((d, b) for d, b in self._blocks.items() if not b.pins and d not in wanted)
        return next((d for d, b in found if seen or b.seen is None), None)

    def _evict(self, digest: str) -> None:
        block = self._blocks.pop(digest)
        if visual := block.seen:
            visual.move(visual.pixels.copy())
        self._holes.give(block.place.offset, block.size)

    def _block(self, offset: int, nbytes: int) -> Block:
        """With nothing in it that a reader would take."""
        self._header(offset)[0] = 0
        return Block(Place(offset, nbytes, next(self._generations)))

    def _fill(self, block: Block, visual: Visual) -> None:
        """It holds the visual's pixels now, and may be read."""
        self._header(block.place.offset)[0] = block.place.generation
        block.kind, block.shape, block.timestamps = visual.kind, visual.pixels.shape, visual.timestamps
        block.view = weakref.ref(visual)
        self._blocks[visual.digest] = block

    def _visual(self, block: Block, digest: str) -> Visual:
        visual = block.seen
        if visual is None:
            visual = Visual(block.kind, self.flat(block).reshape(block.shape), block.timestamps, digest)
            block.view = weakref.ref(visual)
        return visual

    def _header(self, offset: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return self._bytes[offset : offset + 8].view(np.int64)

    def _wake(self) -> None:
        if self._waiting is not None:
            with suppress(RuntimeError):  # its loop is over
                self._waiting.call_soon_threadsafe(self._freed.set)
