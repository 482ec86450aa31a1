"""Shared memory of the server and its engine processes: decoded pixels are received into it and never sent.

A request carries (offset, bytes, generation) of each visual instead of its pixels, so an image that stands in
a hundred prompts lies here once. Blocks are kept by content while there is room, pinned while a request may
read them, and are the cache of what was decoded: who finds one need not decode it. Where the room is taken,
pixels wait on the heap until their prompt is sent, and those of a prompt that waits longer make way for them.

Nothing is ever read wrong: a block starts with its generation, which is wiped out when it is given away,
and the reader checks it before and after it copies (`model/pixels.py`). The file never has a name, so a
kill -9 leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np

from qvl.engine.errors import TooLarge
from qvl.engine.media.block import Block, rounded
from qvl.engine.media.memory import Memory
from qvl.engine.media.nameless import create
from qvl.engine.media.visual import Pixels, Visual

Lookup: TypeAlias = Callable[[bool], None]
"""Told of every look-up whether it was a hit."""

_AT_ONCE = 1 << 20
"""Bytes that are copied on the event loop; more are copied in a thread."""


class Arena:
    """`size` bytes, allocated at once. `pin` and `unpin` are one event loop's, the rest any thread's."""

    def __init__(self, size: int, lookup: Lookup = lambda hit: None) -> None:
        """`lookup` is told whether pixels were in place when their prompt was sent."""
        self.size = size
        self._lookup = lookup
        self._handle: int | None = create(size)
        self._lock = threading.Lock()
        self._memory = Memory(np.frombuffer(mmap.mmap(self._handle, size), dtype=np.uint8))
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
            block = self._memory.blocks.get(digest)
            if block is None:
                return None
            self._memory.blocks.move_to_end(digest)
            return self._memory.visual(block, digest)

    def room(self, nbytes: int) -> Block | None:
        """For pixels on their way, until `keep` or `drop`. None: somebody waits for whatever is here."""
        with self._lock:
            return self._memory.empty(nbytes, frozenset(), spill=False)

    def flat(self, block: Block) -> Pixels:
        """Its pixels."""
        return self._memory.flat(block)

    def keep(self, block: Block, visual: Visual) -> Visual:
        """`visual`, whose pixels have come into `block`; or the one that others have."""
        with self._lock:
            block.pins = 0
            settled = self._memory.settled(block, visual)
            self._wake()
            return visual if settled is block else self._memory.visual(settled, visual.digest)

    def drop(self, block: Block) -> None:
        """What was to come into it will not."""
        with self._lock:
            self._memory.evict(block.name)
            self._wake()

    async def pin(self, visuals: Sequence[Visual]) -> list[Block]:
        """Where each is, until `unpin`; waits its turn while there is no room.

        Raises TooLarge for what would never have it.
        """
        wanted = {visual.digest: visual for visual in visuals}
        if (size := sum(_size(visual) for visual in wanted.values())) > self.size:
            raise TooLarge(
                f"the decoded media of one prompt take {size} bytes, and the engine shares "
                f"{self.size} (media_memory): send fewer or smaller ones",
                code="media_too_large",
            )
        async with self._turn:
            for digest in wanted:
                self._lookup(digest in self._memory.blocks)
            while (blocks := self._reserved(wanted)) is None:
                await self._freed.wait()
            blocks = await self._fill(wanted, blocks)
        return [blocks[visual.digest] for visual in visuals]

    def unpin(self, blocks: Iterable[Block]) -> None:
        """What one `pin` gave, once no engine reads it any more."""
        with self._lock:
            for block in set(blocks):
                block.pins -= 1
        self._freed.set()

    def _reserved(self, wanted: Mapping[str, Visual]) -> dict[str, Block] | None:
        """Pinned, and empty where pixels are on the heap yet. None: `_freed` will tell when to try again."""
        with self._lock:
            blocks = self._placed(wanted)
            if blocks is None and not any(block.pins for block in self._memory.blocks.values()):
                # Nobody will give back anything: some of theirs are in, and leave the room in pieces.
                for digest in list(self._memory.blocks):
                    self._memory.evict(digest)
                blocks = self._placed(wanted)
            if blocks is None:
                self._waiting = asyncio.get_running_loop()
                self._freed.clear()
            return blocks

    def _placed(self, wanted: Mapping[str, Visual]) -> dict[str, Block] | None:
        """Those that are in already are not thrown out for the others."""
        held = self._memory.blocks
        if any(digest not in held for digest in wanted):
            stay = sum(block.size for digest, block in held.items() if block.pins and digest not in wanted)
            if stay + sum(_size(visual) for visual in wanted.values()) > self.size:
                return None
        mine: dict[str, Block] = {}
        for digest, visual in wanted.items():
            if (block := held.get(digest)) is not None:
                block.pins += 1
                held.move_to_end(digest)
            elif (block := self._memory.empty(visual.pixels.nbytes, wanted.keys(), spill=True)) is None:
                for each in mine.values():
                    if each.filled:
                        each.pins -= 1
                    else:
                        self._memory.evict(each.name)
                return None
            mine[digest] = block
        return mine

    async def _fill(self, wanted: Mapping[str, Visual], blocks: Mapping[str, Block]) -> dict[str, Block]:
        """Pixels from the heap come into what `_reserved` left empty."""
        if sum(block.place.nbytes for block in blocks.values() if not block.filled) <= _AT_ONCE:
            return self._filled(wanted, blocks)
        filling = asyncio.get_running_loop().run_in_executor(None, self._filled, wanted, blocks)
        try:
            return await asyncio.shield(filling)
        except asyncio.CancelledError:
            filling.add_done_callback(lambda done: self.unpin(done.result().values()))
            raise

    def _filled(self, wanted: Mapping[str, Visual], blocks: Mapping[str, Block]) -> dict[str, Block]:
        filled = dict(blocks)
        for digest, block in blocks.items():
            if not block.filled:
                self.flat(block)[:] = wanted[digest].pixels.reshape(-1)
                with self._lock:
                    filled[digest] = self._memory.settled(block, wanted[digest])
        return filled

    def _wake(self) -> None:
        if self._waiting is not None:
            with suppress(RuntimeError):  # its loop is over
                self._waiting.call_soon_threadsafe(self._freed.set)


def _size(visual: Visual) -> int:
    return rounded(visual.pixels.nbytes)
