"""http(s) sources: bounded in bytes, seconds and redirects, and led to public addresses only."""

from __future__ import annotations

import asyncio
import os
import ssl
import zlib
from collections.abc import AsyncIterator
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpcore
import httpx

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import ConfigError, Unprocessable
from qvl.engine.media.address import AllowedHosts
from qvl.engine.media.connect import CheckedBackend, CheckedTransport, Resolve, resolve
from qvl.engine.media.source import too_big

CONNECTIONS = 64
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_INFLATED = 1 << 20
"""Bytes that are made of a compressed body before other requests get a turn."""
# httpx maps what httpcore raises only in its own transport.
_FAILURES = (
    httpx.HTTPError,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    ssl.SSLError,
    zlib.error,
)


class Fetcher:
    def __init__(
        self,
        config: MediaConfig,
        limits: Limits,
        *,
        lookup: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._config = config
        self._limits = limits
        self._lookup = lookup
        # Made now: a file of SSL_CERT_FILE that is none is told at the start.
        self._tls = tls or (trusted() if config.url_fetch else None)

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        """Made on first use, by the loop that uses it."""
        assert self._tls is not None
        backend = CheckedBackend(AllowedHosts(self._config.allow_hosts), self._lookup)
        return httpx.AsyncClient(
            transport=CheckedTransport(backend, self._tls, CONNECTIONS),
            headers={
                "user-agent": "qvl",
                "accept": "image/*, video/*, */*;q=0.5",
                "accept-encoding": "identity",
            },
            # One caller's cookies must not reach another's request.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=self._limits.fetch_seconds,
            # A proxy would look names up itself, and what was checked here would not be what is dialled.
            trust_env=False,
        )

    async def fetch(self, url: str) -> bytes:
        if not self._config.url_fetch:
            raise Unprocessable(
                "URLs are not fetched here (--no-url-fetch); send the bytes as a data: URL",
                code="url_forbidden",
            )
        try:
            async with asyncio.timeout(self._limits.fetch_seconds):
                return await self._follow(self._client.build_request("GET", url))
        except (TimeoutError, httpx.TimeoutException, httpcore.TimeoutException):
            raise Unprocessable(
                f"it took over {self._limits.fetch_seconds:g} s (--fetch-seconds); try again, "
                "or send the bytes as a data: URL",
                code="fetch_timeout",
            ) from None
        except httpx.InvalidURL as error:
            raise Unprocessable(f"this is not a valid URL: {error}", code="bad_source") from None
        except _FAILURES as error:
            raise _failed(str(error) or type(error).__name__) from error

    async def _follow(self, request: httpx.Request) -> bytes:
        for _ in range(self._limits.redirects + 1):
            _check_url(request.url)
            response = await self._client.send(request, stream=True)
            try:
                if response.next_request is None:
                    return await self._body(response)
                request = response.next_request
            finally:
                await response.aclose()
        raise Unprocessable(
            f"the URL redirects more than {self._limits.redirects} times (--redirects); give the final one",
            code="too_many_redirects",
        )

    async def _body(self, response: httpx.Response) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise _failed(f"the server answered {response.status_code} {response.reason_phrase}".rstrip())
        most = self._limits.media_bytes
        length = response.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise too_big(int(length), self._limits)
        body, size = [], 0
        async for part in _plain(response):
            body.append(part)
            size += len(part)
            if size > most:
                raise too_big(None, self._limits)
        return b"".join(body)

    async def close(self) -> None:
        if "_client" in self.__dict__:
            await self._client.aclose()


def trusted() -> ssl.SSLContext:
    """Who may sign for hosts: those of SSL_CERT_FILE, or else of SSL_CERT_DIR, or else the usual ones. Raises
    ConfigError."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        file = os.environ.get("SSL_CERT_FILE")
        raise ConfigError(f"SSL_CERT_FILE is {file}, which holds no certificates: {error}") from None


async def _plain(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body without its content encoding. httpx would inflate each part in full, whatever it grows to."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        async for part in response.aiter_raw():
            yield part
        return
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise _failed(f"the server sent content-encoding {coding[:40]!r} though asked for none")
    inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
    async for part in response.aiter_raw():
        while part:
            yield inflate.decompress(part, _INFLATED)
            part = inflate.unconsumed_tail
            await asyncio.sleep(0)
        if inflate.eof:  # what follows would be kept, and copied with each part
            break
    yield inflate.flush()
    if not inflate.eof:
        raise _failed("the compressed body ends early")


def _check_url(url: httpx.URL) -> None:
    if url.scheme not in ("http", "https") or not url.host:
        raise Unprocessable(
            f"{url.scheme or 'a relative'} URLs are not fetched; give an http:// or https:// one",
            code="url_forbidden",
        )
    if url.userinfo:
        raise Unprocessable(
            "URLs with a user name or password are not fetched; use a signed URL or send the bytes",
            code="url_forbidden",
        )


def _failed(reason: str) -> Unprocessable:
    return Unprocessable(
        f"fetching failed: {reason[:200]}; check the URL, or send the bytes as a data: URL",
        code="fetch_failed",
    )
