"""How much of request bodies may be in memory at once: admission only sees those that have come in whole."""

from __future__ import annotations

from qvl.engine.errors import Overloaded

_RETRY_SECONDS = 1.0


class Bodies:
    """Belongs to one event loop. Counts what has come, not what was announced: a lie must cost its teller."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0

    def take(self, size: int) -> None:
        """So many bytes more. Raises Overloaded when that is too much; then they are not counted."""
        if self._held + size > self._limit:
            raise Overloaded(
                f"bodies of {self._held} bytes are in memory, at most {self._limit} are taken "
                "(limits.bodies_bytes): try again later, or at another replica",
                retry_after=_RETRY_SECONDS,
                code="bodies_full",
            )
        self._held += size

    def give_back(self, size: int) -> None:
        self._held -= size
