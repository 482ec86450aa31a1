"""`serve(config)`: one replica on one port, from the first probe to the last answer.

    bind ─► load the models (live: 200, ready: 503) ─► serve ─► drain ─► stop the engine ─► exit code

SIGTERM or SIGINT drains: readiness is 503 for `linger_seconds` while requests are answered; then new ones get
503, and those in flight have `drain_seconds`; a second signal cuts them off. SIGHUP reads keys and
certificates again. If an engine process dies or hangs, requests in flight get 503 and the server exits with
`DIED`, so that a supervisor starts a fresh one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import uvicorn
import uvloop

from qvl.engine import about, tls
from qvl.engine.api.app import create_edge
from qvl.engine.api.cors import with_cors
from qvl.engine.api.replica import Managed, Replica
from qvl.engine.config import EngineConfig, ServerConfig
from qvl.engine.connection import Connection
from qvl.engine.errors import NotStarted, Unavailable
from qvl.engine.logs import log_to_stderr
from qvl.engine.metrics import Metrics
from qvl.engine.placement import gpus_here, tell_of_idle
from qvl.engine.port import DIED, STOPPED, Door, Port, bind, early_signals, leave, on_hangup
from qvl.engine.renew import read_again
from qvl.engine.start import start_engine

Starter: TypeAlias = Callable[[EngineConfig, Metrics], Awaitable[Managed]]

_END_SECONDS = 2.0
"""From the end of the drain to the exit, whatever still runs; by default supervisors kill 2 s later."""
_LOADING_SECONDS = 4.0
"""For a start to be given up."""
_FLUSH_SECONDS = 1
"""For answers already made to leave the socket."""
_LAST_SECONDS = 0.1
"""Between the end of all work and that of the connections."""
_TICK_SECONDS = 1.0
"""Of the clock in answers' headers."""
_log = logging.getLogger("qvl.server")


def serve(config: ServerConfig, start: Starter = start_engine) -> int:
    """Serve until told to stop; the process's exit code. ConfigError when it cannot start."""
    log_to_stderr(config)
    early_signals()

    def started(engine: EngineConfig, metrics: Metrics) -> Awaitable[Managed]:
        threading.Thread(target=_tell, args=(config,), name="qvl-about", daemon=True).start()
        return start(engine, metrics)

    with bind(config.host, config.port) as listener:
        try:
            return serve_at(Port(listener, tls.scheme(config)), config, Metrics(replicas=1), started)
        except (NotStarted, Unavailable) as error:
            _log.error("%s; exiting", error)
            return DIED


def _tell(config: ServerConfig) -> None:
    """In a thread of its own, and in one: to ask for the GPUs may take seconds, and two would ask twice."""
    _log.info("%s", about.line(config))
    tell_of_idle(config, gpus_here())


def serve_at(door: Door, config: ServerConfig, metrics: Metrics, start: Starter = start_engine) -> int:
    """`serve` for connections from anywhere. Raises NotStarted or Unavailable too:
    what it needs is not there yet."""
    tls.check(config)
    code = uvloop.run(_serve(config, door, metrics, start))
    # The interpreter's last collections would walk torch's and vLLM's objects for seconds.
    gc.freeze()
    return code


async def _serve(config: ServerConfig, door: Door, metrics: Metrics, start: Starter) -> int:
    return await _Server(config, door, metrics).run(start)


class _Uvicorn(uvicorn.Server):
    """uvicorn behind a door, without its signal handlers: draining is decided here."""

    def __init__(self, config: uvicorn.Config, door: Door) -> None:
        super().__init__(config)
        self._door = door
        self._ended = asyncio.Event()

    def end(self) -> None:
        self.should_exit = True
        self._ended.set()

    async def main_loop(self) -> None:
        """uvicorn looks ten times a second whether to end: 2.7 ms of an idle second; this leaves 1.0."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _TICK_SECONDS)
        # Who asks on a kept connection still hears that this one refuses, instead of nothing.
        await asyncio.sleep(_LAST_SECONDS)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._door.open(self)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Server:
    """The server's state while its event loop runs."""

    def __init__(self, config: ServerConfig, door: Door, metrics: Metrics) -> None:
        self._config = config
        self._door = door
        self._replica = Replica(metrics, lambda: door.announced)
        self._edge = create_edge(self._replica, config, door.full)
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()
        self._stop_by = float("inf")

    async def run(self, start: Starter) -> int:
        http = _Uvicorn(
            uvicorn.Config(
                with_cors(self._edge, self._config.cors_origin),
                http=Connection,
                ssl_certfile=self._config.tls_cert,
                ssl_keyfile=self._config.tls_key,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=self._config.keep_alive_seconds,
                timeout_graceful_shutdown=_FLUSH_SECONDS,
            ),
            self._door,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        again = partial(read_again, self._edge, http.config, self._config)
        on_hangup(asyncio.get_running_loop(), again, self._signalled)
        answering = asyncio.create_task(http.serve(sockets=self._door.sockets))
        try:
            return await self._live(start)
        finally:
            http.end()
            await answering

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
            self._replica.cut("stopping at once")
            self._stop_by = min(self._stop_by, time.monotonic() + _END_SECONDS)
        self._stop.set()
        seconds = self._config.linger_seconds + self._config.drain_seconds + _END_SECONDS
        self._stop_by = min(self._stop_by, time.monotonic() + seconds)

    async def _live(self, start: Starter) -> int:
        engine = await self._load(start)
        death = asyncio.create_task(engine.died())
        try:
            self._replica.serve(engine)
            self._door.ready([f"{card.id} ({card.role})" for card in engine.models()])
            if await _first(self._stop.wait(), death):
                self._door.refusing()
                await self._linger(death)
                self._replica.drain()
                await self._drain(death)
                return STOPPED
            _log.error("%s; exiting", death.result())
            return DIED
        finally:
            self._door.refusing()
            self._replica.cut(death.result() if death.done() else "stopping")
            death.cancel()
            await self._stop_engine(engine)

    async def _load(self, start: Starter) -> Managed:
        """The engine; when told to stop before it is there, this does not return."""
        loading = asyncio.ensure_future(start(self._config.engine, self._replica.metrics))
        if await _first(self._stop.wait(), loading):
            loading.cancel()
            await asyncio.wait((loading,), timeout=_LOADING_SECONDS)
            leave(STOPPED)
        return loading.result()

    async def _linger(self, death: asyncio.Task[str]) -> None:
        """Answer until all who may ask have been told to ask elsewhere: balancers by the readiness, others by
        the end of their connections."""
        self._replica.leave()
        self._edge.last = True
        hurry = asyncio.create_task(self._hurry.wait())
        seconds = self._config.linger_seconds
        await asyncio.wait((hurry, death), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()

    async def _drain(self, death: asyncio.Task[str]) -> None:
        """Until nothing is in flight, time is up, or the engine has died."""
        waiting = [asyncio.create_task(self._replica.idle()), death]
        seconds = self._config.drain_seconds
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        waiting[0].cancel()

    async def _stop_engine(self, engine: Managed) -> None:
        now = time.monotonic()
        left = min(self._stop_by, now + self._config.drain_seconds + _END_SECONDS) - now - _FLUSH_SECONDS
        try:
            await asyncio.wait_for(engine.stop(), max(_FLUSH_SECONDS, left))
        except TimeoutError:
            _log.error("the engine did not stop in time; its processes are killed")
            leave(STOPPED if self._stop.is_set() else DIED)


async def _first(event: Awaitable[object], other: asyncio.Future[Any]) -> bool:
    """Whether the event came before the other was done."""
    waiting = asyncio.ensure_future(event)
    try:
        await asyncio.wait((waiting, other), return_when=asyncio.FIRST_COMPLETED)
        return waiting.done()
    finally:
        waiting.cancel()
