"""Decoded images and video files, kept by the hash of their encoded bytes while there is room."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeAlias

from cachetools import LRUCache

from qvl.engine.media.decoders import GivenUp
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
        self._begun: dict[str, Future[Visual]] = {}
        """What a thread is decoding now."""
        self._lock = threading.Lock()

    def decoded(self, data: bytes, settings: Key, decode: Decode) -> Visual:
        """What `decode` makes of the bytes and their fingerprint, made before or just now by another thread
        under the same settings. Raises what `decode` raises, to all who wait for it."""
        digest = fingerprint(data, *settings)
        own: Future[Visual] = Future()
        with self._lock:
            found = self._visuals.get(digest)
            begun = own if found is not None else self._begun.setdefault(digest, own)
        self._lookup(found is not None or begun is not own)
        if found is not None:
            return found
        if begun is not own:
            with suppress(GivenUp):
                return begun.result()
            return self.decoded(data, settings, decode)
        return self._first(data, digest, decode, own)

    def _first(self, data: bytes, digest: str, decode: Decode, own: Future[Visual]) -> Visual:
        """Whoever wakes up finds that it has ended."""
        try:
            visual = decode(data, digest)
        except BaseException as error:
            with self._lock:
                del self._begun[digest]
            own.set_exception(error)
            raise
        with self._lock, suppress(ValueError):  # larger than the whole cache
            del self._begun[digest]
            self._visuals[digest] = visual
        own.set_result(visual)
        return visual
