"""What one request has had of a loader, however many calls it takes."""

from __future__ import annotations

import asyncio

from qvl.engine.media.threads import Share, Threads

REQUEST_FETCHES = 24
"""URLs in flight: whose hosts hang must not have all that the loader fetches at once."""


class Quota:
    def __init__(self, threads: Threads) -> None:
        self.turn = asyncio.Semaphore(REQUEST_FETCHES)
        self.share = Share(threads)
        self.reading = asyncio.Lock()
        """Of its texts one part at a time is tokenised, or waits for a thread."""
        self._seen: set[str] = set()
        self._bytes = 0

    def bytes_with(self, digest: str, more: int) -> int:
        """Of pixels, after resizing; equal ones count once."""
        if digest not in self._seen:
            self._seen.add(digest)
            self._bytes += more
        return self._bytes
