"""The server's side of the process that builds its index's graph (`grow.py`)."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from qvl.engine.errors import QvlError
from qvl.engine.machine import foreign_environment

REST_SECONDS = 60.0
"""Between a build that failed and the next."""
_log = logging.getLogger("qvl.search")


class Builder:
    """One at a time, waited for by a thread that does nothing else. Safe to share between threads."""

    def __init__(self, folder: Path, done: Callable[[], None]) -> None:
        """`done` is called by that thread after each graph that was built."""
        self._folder, self._done = folder, done
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[str] | None = None
        self._rested, self._told = 0.0, ""
        self._closed = False

    def start(self) -> None:
        """Returns at once, and does nothing while one runs or has just failed."""
        with self._lock:
            busy = self._thread is not None and self._thread.is_alive()
            if not busy and time.monotonic() >= self._rested:
                # A daemon: a server that ends does not wait for it.
                self._thread = threading.Thread(target=self._run, name="qvl-index-graph", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Kill it, without waiting: it has nothing to put in order."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def _run(self) -> None:
        try:
            failed = self._built()
            if not failed and not self._closed:
                self._done()
        except (OSError, QvlError) as error:
            failed = str(error)
        if self._closed:
            return
        if failed:
            self._rested = time.monotonic() + REST_SECONDS
        if failed and failed != self._told:
            _log.warning(
                "the graph of the index at %s was not built (%s): searches compare all new rows, and take "
                "longer; it is tried again every %g s",
                self._folder,
                failed,
                REST_SECONDS,
            )
        self._told = failed

    def _built(self) -> str:
        """Why it failed, in its own last words."""
        with self._lock:
            if self._closed:
                return ""
            self._process = _started(self._folder)
        with self._process as process:
            assert process.stderr is not None
            words = process.stderr.read().strip().splitlines()
        return f"exit {process.returncode}: {words[-1] if words else ''}" if process.returncode else ""


def _started(folder: Path) -> subprocess.Popen[str]:
    # -P: whatever lies in the working folder is not ours to import.
    command = [sys.executable, "-P", "-m", "qvl.engine.search.grow", str(folder)]
    # The pipe closes with this process, and the other ends.
    pipe, env = subprocess.PIPE, foreign_environment()
    return subprocess.Popen(
        command,
        stdin=pipe,
        stdout=subprocess.DEVNULL,
        stderr=pipe,
        text=True,
        errors="replace",
        env=env,
    )
