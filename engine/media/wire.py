"""What the server and its decoding processes say to each other over a Unix socket; no pickle.

A message is a head in MessagePack and a body of bytes. Pixels go through the socket as well, into the memory
that the engines read: 3 MB took 0.6 ms of CPU on both sides together, and 0.7 as a write to that file.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec
import numpy as np

from qvl.engine import errors
from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import QvlError
from qvl.engine.fragments import Span
from qvl.engine.media.visual import Pixels

Room: TypeAlias = Callable[[int], Pixels]
"""Memory for so many bytes, flat."""
_SIZES = struct.Struct("<IQ")
"""Bytes of the head and of the body."""


class Job(msgspec.Struct, frozen=True, omit_defaults=True):
    """What to make of a body of encoded bytes."""

    kind: Literal["image", "video", "frame"]
    limits: Limits
    fps: float = 1.0
    max_frames: int = 64
    count: int = 1
    """Of a frame: how many images the list has."""
    span: Span = Span()
    """Of a video: the part that is wanted."""
    page: int = 0
    """Of an image that is a PDF, from 1; 0: its only one."""
    pixels: tuple[int, int] = (MediaConfig.min_pixels, MediaConfig.max_pixels)
    """Of an image after resizing: at least, at most."""


class Decoded(msgspec.Struct, frozen=True, tag=True):
    """Of pixels that come as the body."""

    shape: tuple[int, ...]
    timestamps: tuple[float, ...] = ()
    rounded: tuple[int, int] = (0, 0)
    """Of a frame: `frames.Frame.rounded`."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The error of a job, one of `qvl.engine.errors`."""

    name: str
    message: str
    code: str

    @classmethod
    def of(cls, error: QvlError) -> Failed:
        return cls(type(error).__name__, error.message, error.code)

    def error(self) -> QvlError:
        kind: type[QvlError] = getattr(errors, self.name)
        return kind(self.message, code=self.code)


class Closed(Exception):
    """The other side has gone."""


def send(sock: socket.socket, head: msgspec.Struct, body: bytes | Pixels) -> None:
    """Raises OSError when the other side has gone."""
    packed = msgspec.msgpack.encode(head)
    view = memoryview(body) if isinstance(body, bytes) else body.data.cast("B")
    sock.sendall(_SIZES.pack(len(packed), len(view)) + packed)
    sock.sendall(view)


def heap(nbytes: int) -> Pixels:
    return np.empty(nbytes, np.uint8)


def receive(sock: socket.socket, room: Room = heap) -> tuple[bytearray, Pixels]:
    """Head and body, which comes into what `room` gives for its size. Raises Closed."""
    sizes = bytearray(_SIZES.size)
    _fill(sock, memoryview(sizes))
    head_size, body_size = _SIZES.unpack(sizes)
    head, body = bytearray(head_size), room(body_size) if body_size else heap(0)
    _fill(sock, memoryview(head))
    _fill(sock, body.data)
    return head, body


def _fill(sock: socket.socket, view: memoryview) -> None:
    while view:
        count = sock.recv_into(view)
        if not count:
            raise Closed
        view = view[count:]
