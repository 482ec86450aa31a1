"""Which part of the shared memory holds what, and what goes for what. Not locked: `arena.py` does that."""

from __future__ import annotations

import itertools
import secrets
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Set

import numpy as np

from qvl.engine.media.block import HEADER, Block, Place, rounded
from qvl.engine.media.holes import Holes
from qvl.engine.media.visual import Pixels, Visual


class Memory:
    def __init__(self, data: Pixels) -> None:
        """`data`: all of it, flat."""
        self._data = data
        self._holes = Holes(len(data))
        # From where nobody can guess: pixels that spell a block's header would be read as that block's.
        self._generations = itertools.count(1 + secrets.randbits(62))
        self.blocks: OrderedDict[str, Block] = OrderedDict()
        """By content, least recently used first; one that is being filled by its `name`."""

    def flat(self, block: Block) -> Pixels:
        """Its pixels."""
        start = block.place.offset + HEADER
        return self._data[start : start + block.place.nbytes]

    def visual(self, block: Block, digest: str) -> Visual:
        visual = block.seen
        if visual is None:
            visual = Visual(block.kind, self.flat(block).reshape(block.shape), block.timestamps, digest)
            block.view = weakref.ref(visual)
        return visual

    def pin(self, blocks: dict[str, Block]) -> dict[str, Block]:
        for digest, block in blocks.items():
            block.pins += 1
            self.blocks.move_to_end(digest)
        return blocks

    def reserve(self, wanted: Mapping[str, Visual]) -> dict[str, Block] | None:
        """All pinned; those that were not in are empty yet. None: there is no room now."""
        inside = {digest: self.blocks[digest] for digest in wanted if digest in self.blocks}
        stay = sum(block.size for digest, block in self.blocks.items() if block.pins and digest not in inside)
        if stay + sum(rounded(visual.pixels.nbytes) for visual in wanted.values()) > len(self._data):
            return None
        new: dict[str, Block] = {}
        for digest, visual in wanted.items():
            if digest in inside:
                continue
            block = self.empty(visual.pixels.nbytes, wanted.keys(), spill=True)
            if block is None:
                for each in new.values():
                    self.evict(each.name)
                return None
            new[digest] = block
        return self.pin(inside) | new

    def empty(self, nbytes: int, wanted: Set[str], *, spill: bool) -> Block | None:
        """Pinned by whoever fills it, with nothing in it that a reader would take."""
        offset = self._offset(rounded(nbytes), wanted, spill=spill)
        if offset is None:
            return None
        self._header(offset)[0] = 0
        block = Block(Place(offset, nbytes, next(self._generations)), pins=1)
        self.blocks[block.name] = block
        return block

    def settled(self, block: Block, visual: Visual) -> Block:
        """`block`, which has the visual's pixels now and may be read; or the one that has come meanwhile."""
        del self.blocks[block.name]
        known = self.blocks.get(visual.digest)
        if known is not None:
            known.pins += block.pins
            self._holes.give(*block.part)
            return known
        self._header(block.place.offset)[0] = block.place.generation
        block.kind, block.shape, block.timestamps = visual.kind, visual.pixels.shape, visual.timestamps
        visual.move(self.flat(block).reshape(block.shape))
        block.view = weakref.ref(visual)
        self.blocks[visual.digest] = block
        return block

    def evict(self, digest: str) -> None:
        block = self.blocks.pop(digest)
        if visual := block.seen:
            visual.move(visual.pixels.copy())
        # It may come to lie within another's pixels, and who still holds its place must not take those.
        self._header(block.place.offset)[0] = 0
        self._holes.give(*block.part)

    def _offset(self, size: int, wanted: Set[str], *, spill: bool) -> int | None:
        """`spill`: also the room of what somebody waits for, but no engine reads. Nothing goes in vain."""
        if (offset := self._holes.take(size)) is not None:
            return offset
        gone = self._victims(size, wanted, seen=False)
        if spill and not gone:
            gone = self._victims(size, wanted, seen=True)
        for digest in gone:
            self.evict(digest)
        return self._holes.take(size)

    def _victims(self, size: int, wanted: Set[str], *, seen: bool) -> list[str]:
        """What makes room in one piece, around the least recently used; nothing if that cannot be had."""
        may_go = (
            (digest, block)
            for digest, block in self.blocks.items()
            if not block.pins and digest not in wanted and (seen or block.seen is None)
        )
        first = next(may_go, None)
        if first is None or self._holes.would_hold(first[1].part, size):
            return [first[0]] if first else []
        idle = {block.part: digest for digest, block in (first, *may_go)}
        kept = (block.part for block in self.blocks.values() if block.part not in idle)
        window = self._holes.window(size, idle, kept)
        if window is None:
            return []
        start, end = window
        return [digest for (offset, room), digest in idle.items() if offset < end and offset + room > start]

    def _header(self, offset: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return self._data[offset : offset + 8].view(np.int64)
