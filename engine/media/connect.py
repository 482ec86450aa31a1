"""The only way out: a connection to an address that was looked up and checked here, and to no other.

httpcore asks a network backend for each TCP connection, by host name. This one resolves the name itself,
drops every address that is not public, and dials what is left by number, so there is no second look-up that
could answer differently (DNS rebinding). TLS is laid over it by httpcore and still verifies the host name.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TypeAlias

import httpcore
import httpx

from qvl.engine.errors import Unprocessable
from qvl.engine.media.address import AllowedHosts, is_public

Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]

KNOWN_PORTS = (80, 443)
FIRST_FREE_PORT = 1024
"""Below it lie mail, databases and other services that answer to HTTP by accident."""
LOOKUPS = 256
"""Of names, at once, those included that nobody waits for any more: each has a thread until it ends."""
_lookups = threading.BoundedSemaphore(LOOKUPS)


async def resolve(host: str, port: int) -> list[str]:
    """Addresses by the system's resolver, in its order; numbers in any spelling (2130706433, 0x7f.1) too.

    In a thread of its own: no call can be stopped, and the loop has so few threads for them (uvloop two) that
    name servers that hang would hold up everybody's. Nor does the exit wait for one. Raises Unprocessable
    where too many hang.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def tell(addresses: list[str], error: Exception | None) -> None:
        if not found.done():
            found.set_exception(error) if error else found.set_result(addresses)

    def look_up() -> None:
        addresses: list[str] = []
        failure: Exception | None = None
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except (OSError, UnicodeError) as error:
            failure = error
        finally:
            _lookups.release()
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, addresses, failure)

    if not _lookups.acquire(blocking=False):
        raise Unprocessable(
            f"cannot resolve the host {host!r}: {LOOKUPS} look-ups of names hang; try again, or send the "
            "bytes as a data: URL",
            code="fetch_failed",
        )
    try:
        threading.Thread(target=look_up, name="qvl-names", daemon=True).start()
    except RuntimeError as error:  # no thread can be had
        _lookups.release()
        raise OSError(str(error)) from error
    return await found


class CheckedBackend(httpcore.AsyncNetworkBackend):
    def __init__(
        self,
        allowed: AllowedHosts,
        lookup: Resolve = resolve,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._allowed = allowed
        self._lookup = lookup
        self._network = network or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._checked(host, port)
        # An address that does not answer must not use up the time of the next.
        share = timeout and timeout / len(addresses)
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(addresses[-1], port, share, local_address, socket_options)

    async def _checked(self, host: str, port: int) -> list[str]:
        trusted = (host, port) in self._allowed
        if not trusted and port not in KNOWN_PORTS and port < FIRST_FREE_PORT:
            raise refused(
                f"port {port} is not fetched from: ports 80, 443 and from {FIRST_FREE_PORT} on are", host
            )
        try:
            addresses = await self._lookup(host, port)
        except (OSError, UnicodeError):
            raise Unprocessable(f"cannot resolve the host {host!r}", code="fetch_failed") from None
        usable = addresses if trusted else [address for address in addresses if is_public(address)]
        if not usable:
            raise refused("the host does not lead to a public address", host)
        return usable

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise refused("Unix sockets are not fetched from", path)

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


def refused(reason: str, host: str) -> Unprocessable:
    return Unprocessable(
        f"{host!r} is refused: {reason} (an operator can name the host in --allow-hosts)",
        code="url_forbidden",
    )


class CheckedTransport(httpx.AsyncBaseTransport):
    """httpx over httpcore's pool with our backend. httpx's own transport has no place for one."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend, tls: ssl.SSLContext, connections: int) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls, max_connections=connections, keepalive_expiry=5.0, network_backend=backend
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._pool.handle_async_request(
            httpcore.Request(
                request.method,
                httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._answer.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._answer.aclose()
