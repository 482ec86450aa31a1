"""What decides how many replicas there are: a policy, and Ray's delays around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Policy: TypeAlias = Callable[[Any], tuple[float, Any]]


def by_requests(target: float) -> Policy:
    """Ray's default: a number of requests in progress for each replica."""
    return lambda context: (context.total_num_requests / target, None)


class Delays:
    """Ray's: a wish must last before it is followed, and a contrary one starts the wait again."""

    def __init__(self, up: float, down: float) -> None:
        self._seconds = {1: up, -1: down}
        self._direction, self._since = 0, 0.0

    def decide(self, wished: int, target: int, now: float) -> int:
        direction = (wished > target) - (wished < target)
        if direction != self._direction:
            self._direction, self._since = direction, now
        if not direction or now - self._since + 1e-6 < self._seconds[direction]:
            return target
        self._direction = 0
        return wished
