"""What a report of a fault needs: which versions on which GPUs, and every setting that is not its default."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from qvl.engine import machine

SECRETS = frozenset({"api_key", "index_key"})
"""Settings that are never shown."""
_IN_URL = re.compile(r"(?<=://)[^/\s]*@|\?[^\s'\"]*")
"""A name and a password, and a query: either may be a key."""
_log = logging.getLogger("qvl.server")


def tell(config: Any) -> None:
    """One line of the log, in its own time: to ask for the GPUs may take seconds."""
    threading.Thread(target=lambda: _log.info("%s", line(config)), name="qvl-about", daemon=True).start()


def line(config: Any) -> str:
    """`config`: a dataclass of settings, with others inside it."""
    found = machine.versions()
    python = ".".join(map(str, sys.version_info[:3]))
    versions = ", ".join(f"{name} {number}" for name, number in found.items())
    settings = ", ".join(f"{name}={value}" for name, value in changed(config)) or "none"
    return f"{versions}, Python {python}; {_gpus()}; settings that are not the default: {settings}"


def changed(config: Any) -> Iterator[tuple[str, str]]:
    """Names and values, without what is secret."""
    for each in fields(config):
        value = getattr(config, each.name)
        if is_dataclass(value):
            yield from changed(value)
        elif value != _default(each) and each.name not in SECRETS:
            yield each.name, _IN_URL.sub("…", repr(value))


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _gpus() -> str:
    found = Counter((gpu.name, gpu.driver) for gpu in machine.gpus())
    return (
        ", ".join(f"{count} × {name} (driver {driver})" for (name, driver), count in found.items())
        or "no GPU that nvidia-smi tells of"
    )
