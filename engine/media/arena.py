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
from collections import deque
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


class Arena:
    """`size` bytes, allocated at once. `pin` and `unpin` are one event loop's, the rest other threads'."""

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
        """That of a `pin` that may have to be told."""
        self._given_back: deque[Block] = deque()
        """By `unpin`, which waits for no lock."""

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
        """Reserves a block for pixels being decoded; end with `keep` or `drop`.

        None: only blocks that somebody still needs are left.
        """
        with self._lock:
            self._take_back()
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
        if (size := sum(rounded(visual.pixels.nbytes) for visual in wanted.values())) > self.size:
            raise TooLarge(
                f"the decoded media of one prompt take {size} bytes, and the engine shares "
                f"{self.size} (--media-memory): send fewer or smaller ones",
                code="media_too_large",
            )
        await self._turn.acquire()
        bringing: asyncio.Future[dict[str, Block] | None] | None = None
        try:
            for digest in wanted:
                self._lookup(digest in self._memory.blocks)
            self._waiting = asyncio.get_running_loop()
            blocks = self._in_place(wanted)
            while blocks is None:
                self._freed.clear()
                # Hundreds of megabytes take tenths of a second to copy.
                bringing = self._waiting.run_in_executor(None, self._bring, wanted)
                if (blocks := await asyncio.shield(bringing)) is None:
                    await self._freed.wait()
        except BaseException:
            if bringing is None:
                self._end_turn()
            else:
                bringing.add_done_callback(self._unwanted)
            raise
        self._end_turn()
        return [blocks[visual.digest] for visual in visuals]

    def _unwanted(self, bringing: asyncio.Future[dict[str, Block] | None]) -> None:
        """Of a `pin` that was cancelled. Until here nobody else has a turn: two threads would read and write
        each other's blocks."""
        self._end_turn()
        self.unpin((bringing.result() or {}).values())

    def _end_turn(self) -> None:
        self._waiting = None
        self._turn.release()

    def unpin(self, blocks: Iterable[Block]) -> None:
        """What one `pin` gave, once no engine reads it any more."""
        self._given_back.extend(set(blocks))
        self._freed.set()

    def _in_place(self, wanted: Mapping[str, Visual]) -> dict[str, Block] | None:
        """Pinned, if all are."""
        with self._lock:
            found = {digest: self._memory.blocks.get(digest) for digest in wanted}
            blocks = {digest: block for digest, block in found.items() if block is not None}
            return self._memory.pin(blocks) if len(blocks) == len(found) else None

    def _bring(self, wanted: Mapping[str, Visual]) -> dict[str, Block] | None:
        """None: `_freed` will tell when to try again."""
        with self._lock:
            self._take_back()
            blocks = self._memory.reserve(wanted)
            if blocks is None and not any(block.pins for block in self._memory.blocks.values()):
                # Nobody will give back anything: some of theirs are in, and leave the room in pieces.
                for digest in list(self._memory.blocks):
                    self._memory.evict(digest)
                blocks = self._memory.reserve(wanted)
        if blocks is not None:
            for digest, block in blocks.items():
                if not block.filled:
                    self.flat(block)[:] = wanted[digest].pixels.reshape(-1)
                    with self._lock:
                        blocks[digest] = self._memory.settled(block, wanted[digest])
        return blocks

    def _take_back(self) -> None:
        while self._given_back:
            self._given_back.popleft().pins -= 1

    def _wake(self) -> None:
        loop = self._waiting  # which it may give up meanwhile
        if loop is not None:
            with suppress(RuntimeError):  # it is over
                loop.call_soon_threadsafe(self._freed.set)
