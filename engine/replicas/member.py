"""One replica of several on a host: `python -m qvl.engine.replicas.member HANDLE`, started by the supervisor.

It is the server of `server.py`; only its connections come from the supervisor. It leads a process group
that holds its engine processes too, so that none of them outlives it or the supervisor.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from qvl.engine.connection import Connection
from qvl.engine.errors import ConfigError, NotStarted, Unavailable
from qvl.engine.logs import log_to_stderr
from qvl.engine.metrics import Metrics
from qvl.engine.port import DIED, USAGE_ERROR
from qvl.engine.replicas.channel import BEAT_SECONDS, Alive, Channel, Closed, Failed, Full, Ready, Refusing
from qvl.engine.replicas.counts import keep
from qvl.engine.replicas.orders import read
from qvl.engine.server import serve_at
from qvl.engine.start import rest_collector, start_engine

rest_collector()

_log = logging.getLogger("qvl.replica")


class HandedOver:
    """The door of a replica: connections that the supervisor has accepted."""

    def __init__(self, channel: Channel) -> None:
        self.sockets: list[socket.socket] = []
        self._channel = channel
        self._closed = 0
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def announced(self) -> bool:
        return self._channel.announced

    def open(self, server: uvicorn.Server) -> None:
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._take, server)

    def ready(self, models: Sequence[str]) -> None:
        self._channel.tell(Ready(list(models)))
        self._beat()

    def _beat(self) -> None:
        self._channel.tell(Alive())
        asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def refusing(self) -> None:
        self._channel.tell(Refusing())

    def _take(self, server: uvicorn.Server) -> None:
        for connection in self._channel.take():
            if isinstance(connection, bytes):
                signal.raise_signal(signal.SIGHUP)  # which the server answers already
                continue
            if connection is None:
                _log.error("too many connections for the limit on open files (ulimit -n)")
                self._lost()
                continue
            task = asyncio.create_task(self._answer(connection, server))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _answer(self, connection: socket.socket, server: uvicorn.Server) -> None:
        def protocol() -> Connection:
            return Connection(
                lost=self._lost,
                config=server.config,
                server_state=server.server_state,
                app_state=server.lifespan.state,
            )

        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                protocol, connection, ssl=server.config.ssl
            )
        except OSError:  # the client has gone already, or speaks no TLS
            connection.close()
            self._lost()

    def _lost(self) -> None:
        self._closed += 1
        self._channel.tell(Closed(self._closed))

    def full(self) -> None:
        """The client is told to ask again: before it does, the supervisor knows that not to ask here."""
        self._channel.tell(Full())


def die_with(channel: Channel, folder: Path) -> None:
    """When the supervisor goes, so does this process group, at once; a thread, since the loop may be busy."""

    def wait() -> None:
        lifeline = select.poll()
        lifeline.register(channel.fileno(), 0)
        lifeline.poll()
        shutil.rmtree(folder, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def main(handle: int) -> int:
    channel = Channel(socket.socket(fileno=handle))
    orders = read()
    die_with(channel, orders.metrics)
    keep(orders.metrics)
    log_to_stderr(orders.config, orders.number)
    start = orders.start or start_engine
    try:
        metrics = Metrics(orders.metrics, orders.number, orders.config.replicas)
        return serve_at(HandedOver(channel), orders.config, metrics, start)
    except (ConfigError, Unavailable) as error:
        channel.tell(Failed(str(error)))
        return DIED if isinstance(error, (NotStarted, Unavailable)) else USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
