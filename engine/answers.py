"""Rows that the model gave before, by all that it was asked, while there is room.

Users ask the same things again, and documents are embedded again. A row is some kilobytes; the KV blocks that
vLLM would keep for the same end are a thousand times that and more, and hashing them costs each new text. An
answer is a function of the ids, the media, the adapter and the weights: a kept one is as right as a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from qvl.engine.prepare import Ready

Row: TypeAlias = npt.NDArray[np.float32]

_OVERHEAD = 256
"""Bytes of a row's objects and of its key."""


class AnswerCache:
    """Least recently used goes first. Of one event loop."""

    def __init__(self, size: int, lookup: Callable[[bool], None]) -> None:
        """`size`: bytes; 0 keeps nothing. `lookup` is told of every look-up whether it was a hit."""
        self._rows: LRUCache[bytes, Row] = LRUCache(size, getsizeof=lambda row: row.nbytes + _OVERHEAD)
        self._lookup = lookup

    def key(self, item: Ready, adapter: str | None) -> bytes:
        """Of what decides the answer; b"": nothing is kept."""
        if not self._rows.maxsize:
            return b""
        # It tells its length first, and is made in a fifth of the time that an array of them takes.
        asked = blake2b(msgspec.msgpack.encode(item.prompt.ids), digest_size=20)
        for visual in item.visuals:
            asked.update(visual.digest.encode())
        if adapter:
            asked.update(adapter.encode())
        return asked.digest()

    def find(self, key: bytes) -> Row | None:
        if not key:
            return None
        row = self._rows.get(key)
        self._lookup(row is not None)
        return row

    def keep(self, key: bytes, row: Row) -> None:
        if key:
            with suppress(ValueError):  # larger than the whole cache
                # A copy: the row itself is a view into all that the engine sent with it.
                self._rows[key] = row.copy()
