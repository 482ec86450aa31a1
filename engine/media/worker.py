"""A decoding process, and the process that forks them: `python -m qvl.engine.media.worker FD BYTES`.

Decoders are large C libraries fed by strangers. Here one that crashes, or grows beyond BYTES, takes its own
process with it and nothing else. The parent imports them once (seconds, 300 MB) and forks; a child shares
those pages and is there in milliseconds. (The standard library's fork server would run the caller's main
module in each child.) Neither survives the server: the parent ends when its socket closes, and takes a child
with it that hangs in a library and would not see that its own has closed too.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import msgspec

from qvl.engine.errors import QvlError
from qvl.engine.machine import data_bytes
from qvl.engine.media.frames import load_frame, one_core
from qvl.engine.media.image import load_image
from qvl.engine.media.video import load_video
from qvl.engine.media.visual import Pixels
from qvl.engine.media.wire import Closed, Decoded, Failed, Job, receive, send

READY = b"r"
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_DECODE = msgspec.msgpack.Decoder(Job)
_VICTIM = "500"
"""Added to how readily the kernel ends a process when the machine's memory runs out."""


def decode(job: Job, data: bytes) -> tuple[Decoded, Pixels]:
    """Raises QvlError."""
    if job.kind == "frame":
        pixels, rounded = load_frame(data, job.count, job.limits, job.page)
        return Decoded(pixels.shape, rounded=rounded), pixels
    if job.kind == "video":
        pixels, timestamps = load_video(data, job.fps, job.max_frames, job.limits, job.span)
        return Decoded(pixels.shape, timestamps), pixels
    pixels = load_image(data, job.limits, job.page, job.pixels)
    return Decoded(pixels.shape), pixels


def work(sock: socket.socket) -> None:
    """Jobs, one after the other, until the server has closed the socket."""
    while True:
        head, body = receive(sock)
        try:
            done, pixels = decode(_DECODE.decode(head), body.tobytes())
        except QvlError as error:
            send(sock, Failed.of(error), b"")
        else:
            send(sock, done, pixels)
        # What a job leaves in cycles would otherwise wait for the collector's mood.
        del body
        gc.collect(0)


def main(control: socket.socket, memory: int) -> None:
    """Fork a decoder for each socket that comes; its process id goes back."""
    # Ctrl-C and a supervisor's SIGTERM reach the whole group, and a drain still needs decoders.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    control.sendall(READY)
    parent = os.getpid()
    while True:
        try:
            asked, handles, _, _ = socket.recv_fds(control, 1, 1)
        except ConnectionError:  # the server ended with answers of ours unread
            return
        if not asked:
            return
        child = os.fork()
        if child == 0:
            control.close()
            _become_decoder(handles[0], memory, parent)
        os.close(handles[0])
        control.sendall(child.to_bytes(4, "little"))


def _become_decoder(handle: int, memory: int, parent: int) -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:  # it had gone before that was asked for
        os._exit(0)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_VICTIM)
    # Files that crash it would fill the disk with what it had in memory.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = data_bytes() + memory
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    one_core()
    try:
        with socket.socket(fileno=handle) as sock:
            work(sock)
    except (Closed, OSError):
        os._exit(0)
    except Exception:  # noqa: BLE001 - the process's edge; the server only sees it end
        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given:
        main(given, int(sys.argv[2]))
