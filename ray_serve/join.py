"""The Ray cluster that a command works in: one that is there, or one of its own on this machine."""

from __future__ import annotations

import os
from typing import Any

from qvl.engine.errors import ConfigError, NotStarted

NAMESPACE, CONTROLLER = "serve", "SERVE_CONTROLLER_ACTOR"
"""Serve's own: the actor that knows where it listens, and whose end is Serve's."""

_OBJECT_STORE_BYTES = 128 << 20
"""Bodies and vectors never pass it."""


def address_of(given: str | None) -> str | None:
    """Of the cluster to join; None: one of its own."""
    address = given or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address


def join(address: str | None, **options: Any) -> None:
    """None: one of its own. Raises ConfigError, or NotStarted where the cluster may yet come.

    It takes SIGTERM for itself: set handlers afterwards.
    """
    import ray

    if address is None:
        # Ray's dashboard runs code for whoever reaches it, and takes 1 GB: nothing here needs it.
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        ray.init(address=address or "local", logging_level="WARNING", **options)
    except Exception as error:  # noqa: BLE001 - an address is a ValueError, a node that is late just this
        what = f"join the Ray cluster {address}" if address else "start Ray"
        passes = isinstance(error, (ConnectionError, TimeoutError))
        wrong = isinstance(error, (ValueError, OSError)) or "Version mismatch" in str(error)
        said = f"cannot {what}: {' '.join(str(error).split())}"
        raise (ConfigError if wrong and not passes else NotStarted)(said) from None
