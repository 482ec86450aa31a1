"""Decoded images and video files, kept by the hash of their encoded bytes while there is room."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeAlias

from cachetools import LRUCache

from qvl.engine.media.visual import Visual, fingerprint
from qvl.engine.media.wire import GivenUp

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
            return decode(data, digest)
        try:
            own.set_result(decode(data, digest))
        except BaseException as error:
            own.set_exception(error)
            raise
        finally:
            self._keep(digest, own)
        return own.result()

    def _keep(self, digest: str, done: Future[Visual]) -> None:
        with self._lock, suppress(ValueError):  # larger than the whole cache
            del self._begun[digest]
            if done.exception() is None:
                self._visuals[digest] = done.result()
