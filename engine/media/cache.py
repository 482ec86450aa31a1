"""Images and video files by the hash of their encoded bytes: what is decoded, and what is being decoded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeAlias

from qvl.engine.media.arena import Arena, Lookup
from qvl.engine.media.decoders import GivenUp
from qvl.engine.media.visual import Visual, fingerprint

Key: TypeAlias = tuple[object, ...]
Decode: TypeAlias = Callable[[bytes, str], Visual]


class VisualCache:
    """Used from the decoding threads."""

    def __init__(self, arena: Arena | None, lookup: Lookup) -> None:
        """None: nothing is kept. `lookup` is told whether a medium was decoded before, or just then."""
        self._arena = arena
        self._lookup = lookup
        self._begun: dict[str, Future[Visual]] = {}
        """What a thread is decoding now."""
        self._lock = threading.Lock()

    def decoded(self, data: bytes, settings: Key, decode: Decode) -> Visual:
        """What `decode` makes of the bytes and their fingerprint, made before or just now by another thread
        under the same settings. Raises what `decode` raises, to all who wait for it."""
        digest = fingerprint(data, *settings)
        own: Future[Visual] = Future()
        with self._lock:
            found = self._arena.find(digest) if self._arena else None
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
        with self._lock:
            del self._begun[digest]
        own.set_result(visual)
        return visual
