"""Programs of other projects that a few tests check against; `.ci/tools` fetches them, CI has them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

FETCHED = Path(__file__).parent.parent / ".cache" / "tools"
_FAKETIME = "usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


def promtool() -> str:
    """Prometheus' own checker of metrics and rules; skips the test where it is not."""
    found = shutil.which("promtool", path=FETCHED / "usr/bin") or shutil.which("promtool")
    return found or _missing("promtool")


def faketime() -> str:
    """A library that, loaded before all others, gives a process another wall clock; skips likewise."""
    found = next((path for path in (FETCHED / _FAKETIME, Path("/", _FAKETIME)) if path.exists()), None)
    return str(found) if found else _missing("libfaketime")


def _missing(name: str) -> str:
    pytest.skip(f"needs {name}: .ci/tools fetches it where there is apt")
