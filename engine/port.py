"""The server's outside: the port it takes, what it says on the console, and how it exits."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol

from qvl.engine.errors import ConfigError
from qvl.engine.logs import flush

if TYPE_CHECKING:
    import asyncio

    import uvicorn

STOPPED = 0
"""It was told to."""
USAGE_ERROR = 2
"""A setting that cannot work; starting again is of no use."""
DIED = 3
"""What it needs has ended, or is not there yet; starting again may be of use."""
_CHILD_SECONDS = 1.0
"""For one that was killed to be gone."""


class Door(Protocol):
    """Where a replica's connections come from, and who hears how it does."""

    @property
    def sockets(self) -> list[socket.socket]:
        """Listeners to accept from."""

    @property
    def full(self) -> Callable[[], None] | None:
        """To be told before a refusal for load leaves; None: there is no other replica to ask."""

    @property
    def announced(self) -> bool:
        """Whether the other replicas at the same port, if any, have been ready, or will not be soon."""

    def open(self, server: uvicorn.Server) -> None:
        """HTTP is answered from now on."""

    def ready(self, models: Sequence[str]) -> None:
        """So are requests."""

    def refusing(self) -> None:
        """Requests are not answered any more."""


class Port:
    """The door of a server of one replica: a listener of its own."""

    full = None
    announced = True

    def __init__(self, listener: socket.socket, scheme: str) -> None:
        self.sockets = [listener]
        self._scheme = scheme

    def open(self, server: uvicorn.Server) -> None:
        pass

    def ready(self, models: Sequence[str]) -> None:
        say_ready(self.sockets[0], self._scheme, models)

    def refusing(self) -> None:
        pass


def url(host: str, port: int, scheme: str = "http") -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def say_ready(listener: socket.socket, scheme: str, models: Sequence[str], more: str = "") -> None:
    host, port = listener.getsockname()[:2]
    sys.stdout.write(f"qvl is ready on {url(host, port, scheme)}: {', '.join(models)}{more}\n")
    sys.stdout.flush()


def on_hangup(loop: asyncio.AbstractEventLoop, again: Callable[[], None], stop: Callable[[], None]) -> None:
    """SIGHUP: read files `again`. From a terminal it says that this has gone, which is to `stop` a server."""
    loop.add_signal_handler(signal.SIGHUP, stop if os.isatty(0) else again)


def early_signals() -> None:
    """Until the loop has handlers: what SIGHUP asks to be read again has not been read yet, and by default it
    kills; and SIGTERM by default does nothing to process 1 of a container."""
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(STOPPED))
    if not os.isatty(0):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def free_port() -> int:
    """One of this machine's that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def bind(host: str, port: int) -> socket.socket:
    """Take the port before anything is loaded. `::` is every address of both families."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} on {host} is in use: stop the other program or choose another --port"
            ) from None
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def leave(code: int) -> NoReturn:
    """End this process and those it started, now, whatever hangs in a thread: a model half loaded, say."""
    for child in multiprocessing.active_children():
        child.kill()
        child.join(_CHILD_SECONDS)
    flush()
    sys.stdout.flush()
    os._exit(code)
