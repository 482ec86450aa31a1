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
        self.bytes = 0
        """Of pixels, after resizing."""
