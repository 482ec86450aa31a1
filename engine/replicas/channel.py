"""Between the supervisor and a replica: connections one way, notes the other, over a pair of Unix sockets.

The pair is also the replica's lifeline: it hangs up when the supervisor has gone, however it went.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import TypeAlias

import msgspec

_MOST_BYTES = 1 << 16
"""Of a packet."""
BEAT_SECONDS = 1.0
_CONNECTION = b"connection"
ANNOUNCED = b"announced"
"""The word that the server is ready. It comes with each later connection too, should it be lost."""
AGAIN = b"again"
"""The word to read keys and certificates again. A signal would end a replica that has just begun to start."""


class Ready(msgspec.Struct, tag=True):
    models: list[str]


class Refusing(msgspec.Struct, tag=True):
    """No more connections."""


class Closed(msgspec.Struct, tag=True):
    connections: int
    """In all: a note that is lost is made up for by the next."""


class Full(msgspec.Struct, tag=True):
    """A request has just been refused because too much is in progress."""


class Alive(msgspec.Struct, tag=True):
    """Its event loop turns: sent every BEAT_SECONDS once it is ready."""


class Failed(msgspec.Struct, tag=True):
    """The replica cannot be what it was ordered to be."""

    line: str


Note: TypeAlias = Ready | Refusing | Closed | Full | Alive | Failed
_decoder: msgspec.json.Decoder[Note] = msgspec.json.Decoder(Note)


class Channel:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        end.set_inheritable(False)
        end.setblocking(False)
        self._end = end
        self.hung_up = False
        """Whether the other end has."""
        self.announced = False
        """Whether the supervisor has said that the server is ready: seen by `take`."""

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """The supervisor's end, and the one to be inherited."""
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(own), other

    def fileno(self) -> int:
        return self._end.fileno()

    def close(self) -> None:
        self._end.close()

    def hand(self, connection: socket.socket, *, announced: bool) -> bool:
        """Give a connection away; False when the other end has gone or has too many waiting."""
        try:
            socket.send_fds(self._end, [_CONNECTION + ANNOUNCED * announced], [connection.fileno()])
        except OSError:
            return False
        return True

    def say(self, word: bytes) -> bool:
        """False when the other end cannot be told now."""
        try:
            self._end.send(word)
        except OSError:
            return False
        return True

    def take(self) -> Iterator[socket.socket | bytes | None]:
        """The connections that have been given, None for one that this process had no handle left for; and
        AGAIN, each time that it was said."""
        with suppress(BlockingIOError, ConnectionError):
            while True:
                packet, handles, _, _ = socket.recv_fds(self._end, _MOST_BYTES, 1)
                if not packet:
                    return
                if packet == AGAIN:
                    yield packet
                    continue
                self.announced |= packet.endswith(ANNOUNCED)
                if packet == ANNOUNCED:
                    continue
                connection = socket.socket(fileno=handles[0]) if handles else None
                if connection is not None:
                    connection.setblocking(False)
                yield connection

    def tell(self, note: Note) -> None:
        with suppress(OSError):
            self._end.send(msgspec.json.encode(note))

    def told(self) -> Iterator[Note]:
        """The notes that have come."""
        with suppress(BlockingIOError, ConnectionError):
            while packet := self._end.recv(_MOST_BYTES):
                yield _decoder.decode(packet)
            self.hung_up = True
