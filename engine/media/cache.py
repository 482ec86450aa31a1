"""Decoded images and video files, kept by the hash of their encoded bytes while there is room."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from cachetools import LRUCache

from qvl.engine.media.visual import Visual, fingerprint

Key: TypeAlias = tuple[object, ...]
Decode: TypeAlias = Callable[[bytes, str], Visual]
Lookup: TypeAlias = Callable[[bool], None]
"""Told of every look-up whether it was a hit."""


class VisualCache:
    """Least recently used goes first; `size` counts bytes of pixels. Used from the decoding threads."""

    def __init__(self, size: int, lookup: Lookup) -> None:
        self._lookup = lookup
        self._visuals: LRUCache[str, Visual] = LRUCache(size, getsizeof=lambda visual: visual.pixels.nbytes)
        self._lock = threading.Lock()

    def decoded(self, data: bytes, settings: Key, decode: Decode) -> Visual:
        """What `decode` makes of the bytes and their fingerprint, or made before under the same settings."""
        digest = fingerprint(data, *settings)
        with self._lock:
            found = self._visuals.get(digest)
        self._lookup(found is not None)
        return found or self._keep(decode(data, digest))

    def _keep(self, visual: Visual) -> Visual:
        with self._lock, suppress(ValueError):  # larger than the whole cache
            self._visuals[visual.digest] = visual
        return visual
