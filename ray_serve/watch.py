"""Whether what was deployed is still there; who waits for a signal alone would not notice its end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Collection
from contextlib import suppress

_LOOK_SECONDS = 5.0
_SILENT_SECONDS = 40.0
"""Ray starts a controller that was killed again in 10 s, and ends this process in its own way, with status 1,
60 s after the end of its GCS."""


def watched(names: Collection[str], stop: threading.Event) -> str:
    """Returns nothing when told to stop, or why none of these applications is served any more."""
    answered = threading.Event()
    # A thread, since a call to a controller that is dead may not return.
    threading.Thread(target=_look, args=(set(names), answered, stop), daemon=True).start()
    silent_seconds = 0.0  # counted in looks, not by a clock: after a sleep of the whole machine nothing hangs
    while not stop.wait(_LOOK_SECONDS):
        silent_seconds = 0.0 if answered.is_set() else silent_seconds + _LOOK_SECONDS
        answered.clear()
        if silent_seconds >= _SILENT_SECONDS:
            return (
                f"for {_SILENT_SECONDS:g} s Ray has known nothing of what was deployed here: its GCS or "
                "Serve's controller is dead, or somebody ran `serve shutdown`"
            )
    return ""


def _look(names: set[str], answered: threading.Event, stop: threading.Event) -> None:
    import ray
    from ray import serve

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    while not stop.wait(_LOOK_SECONDS / 2):  # later it would join the cluster once more
        with suppress(Exception):  # whatever Ray says of a cluster that is no more
            # Not by a call of Ray's: while its GCS is dead that holds up every thread of the process.
            socket.create_connection((host.strip("[]"), int(port)), _LOOK_SECONDS).close()
            if names & serve.status().applications.keys():
                answered.set()
