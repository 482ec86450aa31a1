"""Who may ask, and how often: API keys from the settings and a file, compared in constant time."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from qvl.engine.config import ServerConfig
from qvl.engine.errors import ConfigError, Overloaded, Unauthorized

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/ping"})
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MINUTE = 60.0


class Caller:
    """The holder of one key or several: a name for metrics and fair shares, and its requests a minute."""

    def __init__(self, name: str, rpm: int | None = None) -> None:
        self.name = name
        self.rpm = rpm
        self._left = float(rpm or 0)
        self._at = time.monotonic()

    def count(self) -> None:
        """One request more. Raises Overloaded beyond the rate; a whole minute's may come at once."""
        if self.rpm is None:
            return
        now, rate = time.monotonic(), self.rpm / _MINUTE
        self._left = min(self.rpm, self._left + (now - self._at) * rate)
        self._at = now
        if self._left < 1:
            raise Overloaded(
                f"API key {self.name!r} is over its limit of {self.rpm} requests a minute",
                retry_after=(1 - self._left) / rate,
                code="rate_limited",
            )
        self._left -= 1


ANYONE = Caller("-")
"""Who asks an open server, or an open path."""


class Keys:
    """Every accepted key; none means that the server is open."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._callers: dict[bytes, Caller] = {}
        callers: dict[str, Caller] = {}
        for number, entry in enumerate(entries, 1):
            key, caller = _entry(entry, f"key-{number}")
            known = callers.setdefault(caller.name, caller)
            if known.rpm != caller.rpm:
                raise ConfigError(f"the API keys named {caller.name!r} have different rpm; give them one")
            self._callers[key] = known

    def __bool__(self) -> bool:
        return bool(self._callers)

    def caller(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Whose key is presented. Raises Unauthorized unless it is one of these, or none is asked for."""
        if not self._callers or path in OPEN_PATHS:
            return ANYONE
        given = _presented(headers)
        if given is None:
            raise Unauthorized("no API key: send `Authorization: Bearer KEY`", code="missing_api_key")
        # Every key is compared: to stop at the one that matched would let the time tell which.
        found = [caller for key, caller in self._callers.items() if hmac.compare_digest(given, key)]
        if not found:
            raise Unauthorized("the API key is not one of this server's")
        return found[0]


def load_keys(config: ServerConfig) -> Keys:
    """Those of the settings, then those of the file."""
    entries: list[str] = [entry.strip() for entry in config.api_key]
    if config.api_key_file is not None:
        try:
            lines = Path(config.api_key_file).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read --api-key-file {config.api_key_file}: {error}") from None
        entries += [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
        if not entries:
            raise ConfigError(f"--api-key-file {config.api_key_file} has no key: put one on a line")
    if not all(entries):
        raise ConfigError("an API key is empty; leave the setting out for an open server")
    return Keys(entries)


def _entry(entry: str, name: str) -> tuple[bytes, Caller]:
    """`KEY [name=NAME] [rpm=N]`. The key itself is never in a message."""
    key, *rest = entry.split()
    if key.startswith(("name=", "rpm=")):
        raise ConfigError("an API key comes before its name= and rpm=, on one line: KEY name=NAME rpm=NUMBER")
    given = _options(rest)
    name, rpm = given.get("name", name), given.get("rpm")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"an API key's name may have letters, digits and ._-, at most 64: {name!r}")
    if rpm is not None and not (rpm.isdecimal() and int(rpm) > 0):
        raise ConfigError(f"the rpm of the API key {name!r} must be a number above 0, got {rpm!r}")
    return key.encode(), Caller(name, int(rpm) if rpm else None)


def _options(words: Sequence[str]) -> dict[str, str]:
    given = dict(word.partition("=")[::2] for word in words)
    if len(given) < len(words) or given.keys() - {"name", "rpm"}:
        raise ConfigError("an API key may be followed by name=NAME and rpm=NUMBER, once each")
    return given


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    found = {
        name.lower(): value for name, value in headers if name.lower() in (b"authorization", b"x-api-key")
    }
    scheme, _, token = found.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    return found.get(b"x-api-key")
