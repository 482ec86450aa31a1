"""Who may ask what, and how often: API keys from the settings and a file, compared in constant time."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from qvl.engine.config import ServerConfig
from qvl.engine.errors import ConfigError, Forbidden, Overloaded, Unauthorized

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/ping"})
ONLY = {"metrics": "/metrics"}
"""What a key may be for alone, and where that is."""
KEY_HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key"})
"""OpenAI's `Bearer KEY`; the bare key of many others, and of Azure's clients."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MINUTE = 60.0


class Caller:
    """The holder of one key or several: a name for metrics and fair shares, its requests a minute, and what
    it may ask, if not all."""

    def __init__(self, name: str, rpm: int | None = None, only: str | None = None) -> None:
        self.name = name
        self.rpm = rpm
        self.only = only
        self._left = float(rpm or 0)
        self._at = time.monotonic()

    def check(self, path: str) -> None:
        """Raises Forbidden where its key is for something else."""
        if self.only is not None and path != ONLY[self.only]:
            raise Forbidden(f"the key {self.name!r} opens {ONLY[self.only]} alone (only={self.only})")

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
            if (known.rpm, known.only) != (caller.rpm, caller.only):
                raise ConfigError(f"the API keys named {caller.name!r} have different rpm or only")
            self._callers[key] = known
        if callers and all(caller.only for caller in callers.values()):
            raise ConfigError("every API key is for one thing alone (only=): nobody could ask the models")

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
    """`KEY [name=NAME] [rpm=N] [only=metrics]`. The key itself is never in a message."""
    key, *rest = entry.split()
    if key.startswith(("name=", "rpm=", "only=")):
        raise ConfigError(
            "an API key comes before its name=, rpm= and only=, on one line: KEY name=NAME rpm=NUMBER"
        )
    given = _options(rest)
    name, rpm, only = given.get("name", name), given.get("rpm"), given.get("only")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"an API key's name may have letters, digits and ._-, at most 64: {name!r}")
    if rpm is not None and not (rpm.isdecimal() and int(rpm) > 0):
        raise ConfigError(f"the rpm of the API key {name!r} must be a number above 0, got {rpm!r}")
    if only is not None and only not in ONLY:
        raise ConfigError(f"the API key {name!r} can be only={' or '.join(ONLY)}, got {only!r}")
    return key.encode(), Caller(name, int(rpm) if rpm else None, only)


def _options(words: Sequence[str]) -> dict[str, str]:
    given = dict(word.partition("=")[::2] for word in words)
    if len(given) < len(words) or given.keys() - {"name", "rpm", "only"}:
        raise ConfigError("an API key may be followed by name=NAME, rpm=NUMBER and only=metrics, once each")
    return given


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    found = {name.lower(): value for name, value in headers if name.lower() in KEY_HEADERS}
    scheme, _, token = found.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    return found.get(b"x-api-key", found.get(b"api-key"))
