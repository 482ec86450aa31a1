"""How many replicas a pool should have: by the tokens in progress, not by the number of requests.

A request with a 64-frame video counts as one request and costs as much as a thousand short texts. Pure
Python: Ray pickles this module into its controller, and the simulation in `benchmarks/` runs it bare.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

QUEUED = "qvl_tokens_in_progress"
"""What each replica reports: estimated tokens, visual ones included, that it has not answered yet."""


class QueuedTokens:
    """A policy of Ray Serve, which itself applies its delays and the bounds on replicas around it.

    It asks for so many that none has more than `replica_tokens` in progress; Ray rounds fractions up.
    """

    def __init__(self, replica_tokens: float) -> None:
        self._each = replica_tokens

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        return in_progress(context.aggregated_metrics or {}) / self._each, {}


def in_progress(metrics: Mapping[str, Mapping[Any, float]]) -> float:
    """Of all replicas that have reported; one that is new has nothing yet."""
    return sum(metrics.get(QUEUED, {}).values())
