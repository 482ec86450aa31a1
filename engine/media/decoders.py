"""The server's side of its decoding processes: one for each thread that decodes, replaced when it ends.

A process that dies of a file is replaced and the file tried once more, for it may have been killed for
another reason; a file that ends two is refused. One that takes too long, or that nobody waits for any more,
is killed.

Beside threads that decode, a 1024 × 1024 JPEG costs 1.5 ms of CPU more (9 against 7.5 here), as much wall
time, and the event loop never waits for a decoder's hold on the interpreter.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from qvl.engine.config import Limits
from qvl.engine.errors import Unavailable, Unprocessable
from qvl.engine.machine import foreign_environment
from qvl.engine.media import wire
from qvl.engine.media.image import is_page
from qvl.engine.media.pdf import PAGE_SECONDS
from qvl.engine.media.visual import Pixels
from qvl.engine.media.wire import Closed, Decoded, Failed, Job, Room, heap

TIMEOUT = "decode_timeout"
MEMORY = 1 << 30
"""Bytes that a decoder may take beyond what an image of the most pixels needs."""
BYTES_PER_PIXEL = 16
"""Of the largest image while it is decoded and converted: RGBA and what Pillow makes of it."""
_POLL_MILLISECONDS = 50
_PATIENCE_SECONDS = 0.5
"""For a job that nobody waits for: an image is done by then, and a new process costs more."""
_START_SECONDS = 120.0
_TRIES = 3
"""To fork a process that does not end before it is known."""
_DAY_SECONDS = 86400.0
_ANSWER = msgspec.msgpack.Decoder(Decoded | Failed)
_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    # glibc would give each picture's memory back, and the next one's page faults took 5 ms.
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "CUDA_VISIBLE_DEVICES": "",
}


class GivenUp(Unprocessable):
    """Nobody waits any more for what is being decoded."""


class Decoders:
    """Those of one pool of threads; `close` once none of them decodes any more."""

    def __init__(self, forks: ForkServer) -> None:
        self._forks = forks
        self._own = threading.local()
        self._workers: set[Worker] = set()

    def decode(
        self, job: Job, data: bytes, stopped: Callable[[], bool], room: Room = heap
    ) -> tuple[Decoded, Pixels]:
        """Blocks. Raises QvlError; `stopped`: nobody waits for the answer any more. `room` is asked again
        where a process dies in the middle of an answer."""
        for _ in range(2):
            worker = self._worker()
            try:
                answer, body = worker.ask(job, data, stopped, room)
            except (Closed, OSError):
                self._drop(worker)
            except BaseException:  # its answer may still come, and would be taken for the next file's
                self._drop(worker)
                raise
            else:
                if isinstance(answer, Failed):
                    raise answer.error()
                return answer, body.reshape(answer.shape)
        raise Unprocessable(
            "decoding this file ended the decoder twice: it crashed, or took too much memory; check the "
            "file or re-encode it",
            code="decoder_crashed",
        )

    def close(self) -> None:
        while self._workers:
            self._workers.pop().kill()

    def _worker(self) -> Worker:
        """This thread's own."""
        found: Worker | None = getattr(self._own, "worker", None)
        if found is None:
            found = self._own.worker = self._forks.fork()
            self._workers.add(found)
        return found

    def _drop(self, worker: Worker) -> None:
        worker.kill()
        self._workers.discard(worker)
        self._own.worker = None


def memory(limits: Limits) -> int:
    """What a decoder may take."""
    return MEMORY + BYTES_PER_PIXEL * limits.image_pixels


class ForkServer:
    """The process of `worker.main`: starts at once, in the background. Safe to share between threads."""

    def __init__(self, memory: int) -> None:
        """`memory`: bytes that each process may take for its work."""
        self._memory = memory
        self._lock = threading.Lock()
        self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self) -> None:
        """Until it can fork: some seconds after the start. Raises Unavailable when it has died."""
        with self._lock:
            try:
                self._wait()
            except (Closed, OSError) as error:
                raise _none_to_be_had(error) from error

    def fork(self) -> Worker:
        """Raises Unavailable when it cannot be started again either."""
        with self._lock:
            try:
                return self._fork()
            except (Closed, OSError):
                self.close()
            try:
                self._start()
                return self._fork()
            except (Closed, OSError) as error:
                raise _none_to_be_had(error) from error

    def close(self) -> None:
        self._control.close()
        # It has nothing to save, and may be in the middle of its imports.
        self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        self._ready = False
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_START_SECONDS)
        # -P: whatever lies in the working folder is not ours to import.
        command = [sys.executable, "-P", "-m", "qvl.engine.media.worker", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(self._memory)],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env={**foreign_environment(), **_ENVIRONMENT},
            )

    def _wait(self) -> None:
        if not self._ready and not self._control.recv(1):
            raise Closed("it ended while it started")
        self._ready = True

    def _fork(self) -> Worker:
        self._wait()
        for _ in range(_TRIES):
            ours, theirs = socket.socketpair()
            try:
                with theirs:
                    socket.send_fds(self._control, [b"f"], [theirs.fileno()])
                answer = self._control.recv(4, socket.MSG_WAITALL)
                if len(answer) < 4:
                    raise Closed("it ended")
                return Worker(ours, int.from_bytes(answer, "little"))
            except ProcessLookupError:  # killed and reaped already: that is no fault of who forked it
                ours.close()
            except BaseException:
                ours.close()
                raise
        raise Closed("each ended at once")


def _none_to_be_had(error: Exception) -> Unavailable:
    return Unavailable(f"no decoding process can be started ({error}); see the log", code="decoders_died")


def _timeout(job: Job, seconds: float, page: bool) -> Unprocessable:
    if page:
        message = f"drawing this page of a PDF took over {seconds:g} s; send a picture of the page"
    else:
        instead = "shorter one, or a list of frames" if job.kind == "video" else "smaller one"
        message = f"decoding it took over {seconds:g} s (--decode-seconds); send a {instead}"
    return Unprocessable(message, code=TIMEOUT)


class Worker:
    """One decoding process, for one thread at a time."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        # Not the number: by the time it is killed, that may be another process's.
        self._process = os.pidfd_open(pid)
        self._sock = sock

    def ask(
        self, job: Job, data: bytes, stopped: Callable[[], bool], room: Room
    ) -> tuple[Decoded | Failed, Pixels]:
        """Raises Closed or OSError when the process has died, Unprocessable when it is to be killed."""
        page = job.kind != "video" and is_page(data)
        seconds = min(job.limits.decode_seconds, PAGE_SECONDS if page else _DAY_SECONDS)
        # For one that stops in the middle of an answer, or does not read: an OSError, as if it had died.
        self._sock.settimeout(seconds)
        wire.send(self._sock, job, data)
        started, given_up = time.monotonic(), 0.0
        answered = select.poll()  # select() knows no handle above 1023, and a busy server has more
        answered.register(self._sock, select.POLLIN)
        while not answered.poll(_POLL_MILLISECONDS):
            now = time.monotonic()
            if now - started > seconds:
                raise _timeout(job, seconds, page)
            given_up = given_up or (now if stopped() else 0.0)
            if given_up and now - given_up > _PATIENCE_SECONDS:
                raise GivenUp("the request was given up")
        head, body = wire.receive(self._sock, room)
        return _ANSWER.decode(head), body

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        os.close(self._process)
        self._sock.close()
