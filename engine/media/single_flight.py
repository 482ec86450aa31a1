"""Images and video files by the hash of their encoded bytes: each is decoded once, by whoever comes first."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeAlias

from qvl.engine.media.arena import Arena, Lookup
from qvl.engine.media.decoders import GivenUp
from qvl.engine.media.visual import Visual, fingerprint

Key: TypeAlias = tuple[object, ...]
Decode: TypeAlias = Callable[[bytes, str], Visual]


class SingleFlight:
    """Used from the decoding threads. The arena keeps what is decoded; here is what is being decoded."""

    def __init__(self, arena: Arena | None, lookup: Lookup) -> None:
        """None: nothing is looked up. `lookup` is told whether a medium was decoded before, or just then."""
        self._arena = arena
        self._lookup = lookup
        self._begun: dict[str, Future[Visual]] = {}
        """What a thread is decoding now."""
        self._lock = threading.Lock()

    def visual(self, data: bytes, settings: Key, decode: Decode) -> Visual | Future[Visual]:
        """What `decode` makes of the bytes and their fingerprint, now or before, under the same settings; a
        future: another thread is at it, and none need wait for it. Raises what `decode` raises, to all."""
        digest = fingerprint(data, *settings)
        own: Future[Visual] = Future()
        with self._lock:
            found = self._arena.find(digest) if self._arena else None
            begun = own if found is not None else self._begun.setdefault(digest, own)
        self._lookup(found is not None or begun is not own)
        if found is not None:
            return found
        return self._first(data, digest, decode, own) if begun is own else begun

    def _first(self, data: bytes, digest: str, decode: Decode, own: Future[Visual]) -> Visual:
        """Whoever is told finds that it has ended."""
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


async def by_anyone(load: Callable[[], Coroutine[Any, Any, Visual | Future[Visual]]]) -> Visual:
    """What another request's thread is decoding is waited for here; if that request is given up, it is loaded
    once more."""
    while isinstance(found := await load(), Future):
        with suppress(GivenUp):
            return await asyncio.shield(asyncio.wrap_future(found))
    return found
