"""`supervise(config)`: N replicas on one host behind one port.

    accept ─► the ready replica with room and fewest connections ─► the server of `server.py`, its own process

This process loads no model and reads no request. It owns the port, passes each connection to a replica,
starts a replica again that has ended or hangs, and ends them all when told to. While none is ready,
connections go to those that are loading, which answer as any server does that is loading.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import socket
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from qvl.engine import about, tls
from qvl.engine.config import ServerConfig
from qvl.engine.errors import ConfigError
from qvl.engine.logs import log_to_stderr
from qvl.engine.placement import gpus_here, seats, tell_of_idle
from qvl.engine.port import DIED, STOPPED, bind, early_signals, on_hangup, say_ready
from qvl.engine.replicas.child import Child
from qvl.engine.replicas.orders import Orders

if TYPE_CHECKING:
    from qvl.engine.server import Starter

_ATTEMPTS = 3
"""Starts in a row that may fail before a replica that was never ready is not expected to be."""
_STEADY_SECONDS = 60.0
"""A replica that has been ready for so long starts again with the shortest pause."""
_PAUSES_SECONDS = (0.5, 1, 2, 4, 8, 16, 30, 60, 120, 300)
_ALONE_SECONDS = 30.0
"""The longest pause while no other replica is ready."""
_WATCH_SECONDS = 1.0
_LOAD_SECONDS = 3600.0
"""After which a replica that loads is taken to hang: a first start may fetch its models."""
_LOADING_SECONDS = 300.0
"""Between two lines of the log about one that loads."""
_END_SECONDS = 4.2
"""From the end of the drain to the exit; a replica takes 4 at most, its last lines of the log among them."""
_BUSY_SECONDS = 0.02
"""Until a connection that no replica had room for is offered again."""
_log = logging.getLogger("qvl.supervisor")


def supervise(config: ServerConfig, start: Starter | None = None) -> int:
    """Serve until told to stop; the process's exit code. ConfigError when the replicas cannot start."""
    if find_spec("vllm") is None:
        raise ModuleNotFoundError("vLLM is not installed", name="vllm")
    log_to_stderr(config)
    early_signals()
    tls.check(config)
    gpus = gpus_here()
    about.tell(config)  # later than the one who asks for them
    tell_of_idle(config, gpus)
    folder = Path(tempfile.mkdtemp(prefix="qvl-metrics-"))
    orders = [
        (seat.gpus, Orders(number, replace(config, engine=seat.engine), folder, start))
        for number, seat in enumerate(seats(config, gpus))
    ]
    try:
        with bind(config.host, config.port) as listener:
            return uvloop.run(_Supervisor([Child(*each) for each in orders], listener, config).run())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Supervisor:
    def __init__(self, children: Sequence[Child], listener: socket.socket, config: ServerConfig) -> None:
        self._config = config
        self._children = children
        self._listener = listener
        self._turns: defaultdict[tuple[str, ...], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()
        self._hopeless: set[Child] = set()
        """Those that nobody waits for: before they were ready for the first time they have refused, failed
        too often, or gone on to load long after another was ready."""
        self._announced = False

    async def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        on_hangup(asyncio.get_running_loop(), self._read_again, self._signalled)
        accepting = asyncio.create_task(self._accept())
        stop = asyncio.create_task(self._stop.wait())
        keeping = [asyncio.create_task(self._keep(child)) for child in self._children]
        try:
            done, _ = await asyncio.wait((stop, *keeping), return_when=asyncio.FIRST_COMPLETED)
            useless = next((task for task in keeping if task in done), None)
            return STOPPED if stop in done or useless is None else useless.result()
        finally:
            for task in keeping:
                task.cancel()
            await self._end()
            stop.cancel()
            accepting.cancel()

    def _signalled(self) -> None:
        """A replica that is told twice cuts off what is in flight, as any server does."""
        if self._stop.is_set():
            self._hurry.set()
            for child in self._children:
                child.stop()
        self._stop.set()

    def _read_again(self) -> None:
        """One that is gone reads when it starts again."""
        for child in self._children:
            if child.alive and not child.read_again():
                _log.error("replica %d cannot be told to read its files again", child.number)

    async def _end(self) -> None:
        for child in self._children:
            child.stop()
        seconds = self._config.linger_seconds + self._config.drain_seconds + _END_SECONDS
        gone = [asyncio.create_task(child.gone()) for child in self._children]
        all_gone, hurry = asyncio.gather(*gone), asyncio.create_task(self._hurry.wait())
        await asyncio.wait((all_gone, hurry), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if hurry.done():
            await asyncio.wait(gone, timeout=_END_SECONDS)
        hurry.cancel()
        for child in self._children:
            if child.alive:
                _log.error("replica %d did not stop in time; it is killed", child.number)
                child.kill()
        await asyncio.wait(gone)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                _log.error("cannot accept a connection: %s", error.strerror or error)
                await asyncio.sleep(_BUSY_SECONDS)
                continue
            with connection:
                while not self._hand(connection):  # noqa: ASYNC110 - no event tells of room
                    await asyncio.sleep(_BUSY_SECONDS)

    def _hand(self, connection: socket.socket) -> bool:
        alive = [child for child in self._children if child.alive]
        # Those that linger still answer.
        able = [child for child in alive if child.ready or (self._stop.is_set() and child.steady_seconds)]
        return any(child.take(connection) for child in sorted(able or alive, key=Child.load))

    async def _keep(self, child: Child) -> int:
        """Starts it whenever it is gone; the exit code, when there is no use in that."""
        while True:
            async with self._turns[child.gpus]:
                known = any(each.models for each in self._children)
                # What refused without the hub may lack its cache.
                child.start(offline=known and not child.refused)
                await self._loaded(child)
            await self._watched(child)
            child.failures = 1 if child.steady_seconds > _STEADY_SECONDS else child.failures + 1
            if not child.models and (child.refused or child.failures >= _ATTEMPTS):
                self._hopeless.add(child)
            if self._useless():
                return self._give_up(child)
            self._announce()
            pause = _PAUSES_SECONDS[min(child.failures, len(_PAUSES_SECONDS)) - 1]
            if not any(each.ready for each in self._children):
                pause = min(pause, _ALONE_SECONDS)
            _log.error(
                "replica %d has ended (%s); it starts again in %g s", child.number, child.reason, pause
            )
            await asyncio.sleep(pause)

    async def _loaded(self, child: Child) -> None:
        """Returns when it is ready, or gone; one that loads for too long is made to go."""
        loading_seconds = 0.0
        while True:
            with suppress(TimeoutError):
                if await asyncio.wait_for(child.settled(), _LOADING_SECONDS):
                    self._say_ready(child)
                return
            loading_seconds += _LOADING_SECONDS
            _log.info("replica %d has been loading for %g s", child.number, loading_seconds)
            if any(each.models for each in self._children):
                behind = (each for each in self._children if each.gpus == child.gpus)  # wait for their turn
                self._hopeless.update(each for each in behind if not each.models)
                self._announce()
            if loading_seconds >= _LOAD_SECONDS:
                _log.error("replica %d does not get ready; it is killed", child.number)
                child.kill()

    async def _watched(self, child: Child) -> None:
        """Returns when it is gone; one that is silent for too long is made to go.

        Silence is counted in looks, not by a clock: after a sleep of the whole machine nothing hangs.
        """
        silent_seconds, heard = 0.0, child.heard()
        while child.alive:
            with suppress(TimeoutError):
                await asyncio.wait_for(child.gone(), _WATCH_SECONDS)
            silent_seconds = silent_seconds + _WATCH_SECONDS if child.heard() == heard else 0.0
            heard = child.heard()
            if silent_seconds > child.stall_seconds:
                told = child.number, child.stall_seconds
                _log.error("replica %d has been silent for %g s (--stall-seconds); it is killed", *told)
                child.kill()

    def _useless(self) -> bool:
        """Whether none has ever been ready, and on all GPUs one has refused or failed too often.

        A bad GPU says nothing of the others, whose replicas may still be loading.
        """
        if any(child.models for child in self._children):
            return False
        return {child.gpus for child in self._hopeless} == {child.gpus for child in self._children}

    def _give_up(self, child: Child) -> int:
        if child.refused:
            raise ConfigError(child.error)
        told = child.number, child.failures, child.reason
        _log.error("replica %d ended %d times before it was ready (%s)", *told)
        return DIED

    def _say_ready(self, child: Child) -> None:
        where = f"GPU {', '.join(child.gpus)}" if child.gpus else "CPU"
        _log.info("replica %d is ready (process %d, %s)", child.number, child.pid, where)
        self._announce()

    def _announce(self) -> None:
        """Once each replica has been ready, or will not be soon."""
        able = [child for child in self._children if child.models]
        if self._announced or not able or not self._hopeless.union(able).issuperset(self._children):
            return
        self._announced = True
        for child in self._children:
            child.announce()
        some = f"{len(able)} of " if len(able) < len(self._children) else ""
        more = f"; {some}{len(self._children)} replicas"
        say_ready(self._listener, tls.scheme(self._config), able[0].models, more)
