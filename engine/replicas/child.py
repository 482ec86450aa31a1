"""One replica as its supervisor sees it: a process, a channel, and how many connections it has."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress

from qvl.engine.metrics import FOLDER
from qvl.engine.placement import VISIBLE
from qvl.engine.port import USAGE_ERROR
from qvl.engine.replicas.channel import (
    AGAIN,
    ANNOUNCED,
    Alive,
    Channel,
    Closed,
    Failed,
    Full,
    Ready,
    Refusing,
)
from qvl.engine.replicas.counts import forget_gauges, take_room
from qvl.engine.replicas.orders import Orders, written

_BURY_SECONDS = 1.0
"""Between two looks whether a dead replica's engine processes have ended too."""
_FULL_SECONDS = 0.2
"""For which a replica that has refused a request gets a connection only where all have."""
LATE_SECONDS = 3.0
"""Of silence, after which a replica gets a connection only where all are silent."""


class Child:
    """May be started again each time it is gone."""

    def __init__(self, gpus: tuple[str, ...], orders: Orders) -> None:
        self.gpus = gpus
        self.number = orders.number
        self.models: list[str] = []
        """Those it has loaded, once it was ready for the first time."""
        self.ready = False
        self.error: str | None = None
        """Why it cannot start, in its own words."""
        self.failures = 0
        """Starts in a row of which nothing came."""
        self._orders = orders
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_since: float | None = None
        self._announced = self._killed = False
        self._handed = self._closed = 0
        self._full_until = self._heard = 0.0
        self._settled, self._gone = asyncio.Event(), asyncio.Event()
        self._gone.set()

    def start(self, *, offline: bool = False) -> None:
        """A process that cannot be had now, for want of memory or handles, is one that has ended.

        `offline`: it takes its models from the hub's cache, the same commits as others took.
        """
        self._settled, self._gone = asyncio.Event(), asyncio.Event()
        self._handed = self._closed = 0
        self._process = self._ready_since = self.error = None
        self._killed = False
        try:
            self._begin({"HF_HUB_OFFLINE": "1"} if offline else {})
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            self.error = f"cannot start: {where}{error.strerror or error}"

    def _begin(self, more: dict[str, str]) -> None:
        loop = asyncio.get_running_loop()
        environment = os.environ | {FOLDER: str(self._orders.metrics)} | more
        if self.gpus:
            environment[VISIBLE] = ",".join(self.gpus)
        with ExitStack() as in_vain:
            in_vain.callback(self._over)
            take_room(self._orders.metrics, self.number)
            self._channel, theirs = Channel.pair()
            in_vain.callback(self._channel.close)
            with theirs, written(self._orders) as orders:
                # -P: whatever lies in the working folder is not ours to import.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "qvl.engine.replicas.member", str(theirs.fileno())],
                    env=environment,
                    pass_fds=(theirs.fileno(),),
                    stdin=orders,
                    start_new_session=True,
                )
            in_vain.callback(self._reap)
            # No thread that waits: where the host's processes have run out, none can be had.
            ends = os.pidfd_open(self.pid)
            loop.add_reader(ends, self._ended, ends)
            loop.add_reader(self._channel.fileno(), self._hear)
            in_vain.pop_all()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._gone.is_set()

    @property
    def status(self) -> int | None:
        """How the process ended."""
        return self._process.returncode if self._process else None

    @property
    def reason(self) -> str:
        """Why it has ended."""
        of_memory = self.status == -signal.SIGKILL and not self._killed
        hint = (
            ": killed by another; this machine, or its container, may be out of memory" if of_memory else ""
        )
        return self.error or f"status {self.status}{hint}"

    @property
    def refused(self) -> bool:
        """Whether it has said that it cannot be what it was ordered to be, however often it is started."""
        return self.error is not None and self.status == USAGE_ERROR

    @property
    def steady_seconds(self) -> float:
        """How long it has been ready, or was."""
        return 0.0 if self._ready_since is None else time.monotonic() - self._ready_since

    async def settled(self) -> bool:
        """Returns when it is ready for the first time since its start, or gone; whether it was ready."""
        await self._settled.wait()
        return self._ready_since is not None

    async def gone(self) -> None:
        await self._gone.wait()

    @property
    def stall_seconds(self) -> float:
        """Of silence, after which it hangs."""
        return self._orders.config.engine.stall_seconds or float("inf")

    def heard(self) -> float:
        """When it last said that it lives, by the monotonic clock; what waits is heard first.

        One that loads says nothing yet. One that drains, or whose engine has died, still does, or hangs.
        """
        if self._ready_since is None or not self.alive:
            return time.monotonic()
        self._hear()
        return self._heard

    def load(self) -> tuple[bool, bool, int, int]:
        """Sort key, best first: silent, recently full, open connections, connections ever handed over."""
        now = time.monotonic()
        late = self._ready_since is not None and now - self._heard > LATE_SECONDS
        return late, now < self._full_until, self._handed - self._closed, self._handed

    def take(self, connection: socket.socket) -> bool:
        taken = self._channel.hand(connection, announced=self._announced)
        self._handed += taken
        return taken

    def announce(self) -> None:
        """It may say from now on that the server is ready: as many replicas have been as will be soon."""
        self._announced = True
        if self.alive:
            self._channel.say(ANNOUNCED)

    def read_again(self) -> bool:
        """Tell it to read keys and certificates again; False when it is not there to be told."""
        return self.alive and self._channel.say(AGAIN)

    def stop(self) -> None:
        """Ask it to drain and end."""
        if self.alive and self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End it and its engine processes at once."""
        self._killed = True
        self._kill()

    def _kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def _hear(self) -> None:
        for note in self._channel.told():
            match note:
                case Ready(models):
                    self.models, self.ready = models, True
                    self._ready_since = self._heard = time.monotonic()
                    self._settled.set()
                case Refusing():
                    self.ready = False
                case Closed(connections):
                    self._closed = connections
                case Full():
                    self._full_until = time.monotonic() + _FULL_SECONDS
                case Alive():
                    self._heard = time.monotonic()
                case Failed(line):
                    self.error = line
        if self._channel.hung_up:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())

    def _ended(self, ends: int) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(ends)
        os.close(ends)
        try:
            self._reap()
            self._hear()
            loop.remove_reader(self._channel.fileno())
            self._channel.close()
            forget_gauges(self._orders.metrics, self.number)
        finally:
            self._over()

    def _reap(self) -> None:
        """The process, and engine processes that it has left behind: its number is theirs until then."""
        self._kill()
        if self._process is not None:
            self._process.wait()
            self._bury(self.pid)

    def _bury(self, group: int) -> None:
        """Its engine processes: as process 1 of a container this process inherits them, some not dead yet."""
        with suppress(ChildProcessError):
            while os.waitpid(-group, os.WNOHANG)[0]:
                pass
            asyncio.get_running_loop().call_later(_BURY_SECONDS, self._bury, group)

    def _over(self) -> None:
        self.ready = False
        self._settled.set()
        self._gone.set()
