"""A real name server, on loopback, that answers with a public address first and with private ones."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator

import httpcore
import pytest

from qvl.engine.errors import QvlError
from qvl.engine.media.address import AllowedHosts
from qvl.engine.media.connect import CheckedBackend
from tests.engine.media.net.test_ssrf import PUBLIC_ADDRESS, Recorder

HOST = "rebind.test"
_QUESTION = b"".join(bytes([len(part)]) + part.encode() for part in HOST.split(".")) + b"\0\0\1\0\1"


class NameServer:
    """Answers each question for an A record with the next address, time to live 0."""

    def __init__(self, addresses: list[str]) -> None:
        self._left = list(addresses)
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = self._socket.getsockname()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(512)
            if not query:
                return
            self.asked += 1
            answer = self._left.pop(0) if len(self._left) > 1 else self._left[0]
            head = query[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, 1, 0, 0)
            record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(answer)
            self._socket.sendto(head + query[12:] + record, sender)

    async def lookup(self, host: str, port: int) -> list[str]:
        """A resolver without a cache, asking over UDP."""
        assert host == HOST
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(60)
            sock.sendto(b"\x12\x34\x01\x00\0\1\0\0\0\0\0\0" + _QUESTION, self.address)
            return [socket.inet_ntoa((await asyncio.to_thread(sock.recv, 512))[-4:])]

    def stop(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self.address)
        self._thread.join()
        self._socket.close()


@pytest.fixture
def name_server() -> Iterator[NameServer]:
    server = NameServer([PUBLIC_ADDRESS, "127.0.0.1", "169.254.169.254", PUBLIC_ADDRESS, "10.0.0.1"])
    yield server
    server.stop()


def test_what_was_checked_is_what_is_dialled(name_server: NameServer) -> None:
    network = Recorder()
    backend = CheckedBackend(AllowedHosts(()), name_server.lookup, network)
    refused = 0
    for asked in range(1, 9):
        with pytest.raises((httpcore.ConnectError, QvlError)) as caught:
            asyncio.run(backend.connect_tcp(HOST, 80, timeout=5.0))
        refused += isinstance(caught.value, QvlError)
        assert name_server.asked == asked, "a second look-up could answer differently"
    assert network.dialled == [PUBLIC_ADDRESS] * 2
    assert refused == 6


def test_through_the_fetcher(name_server: NameServer, fetch, is_refused) -> None:  # type: ignore[no-untyped-def]
    """From its second answer on, the name leads inside: whatever listens there is never reached."""
    asyncio.run(name_server.lookup(HOST, 80))
    from qvl.engine.config import MediaConfig

    with socket.create_server(("127.0.0.1", 0)) as inside:
        url = f"http://{HOST}:{inside.getsockname()[1]}/secret"
        is_refused(fetch(url, config=MediaConfig(), lookup=name_server.lookup), 422, "url_forbidden")
        inside.setblocking(False)
        with pytest.raises(BlockingIOError):
            inside.accept()
