"""The routes that are not one pool's: what both know together, the models and readiness, is joined here.

HAProxy sends every route that embeds or ranks straight to its pool (`haproxy.py`). Where it is not ours and
knows prefixes only, routes such as `/v2/embed` or `/score` come here; their bodies are streamed on, unread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import quote

import httpx
import msgspec
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from qvl.engine.api import failures
from qvl.engine.api.information import MODELS_PATHS, READY_PATHS
from qvl.engine.api.replies import reply
from qvl.engine.errors import ClientClosed, NotFound, QvlError, Unavailable
from qvl.engine.response import dump
from qvl.ray_serve.haproxy import EMBEDDERS, OTHERS, RERANKERS, ROOT

T = TypeVar("T")

_HOP = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect", b"host"}
)
_RAYS = frozenset({b"server", b"date", b"x-request-id"})
"""Put on the gateway's answer by Ray once more."""
_MODELS = "/v1/models"
_CONNECT_SECONDS = 5.0
_CHECK_SECONDS = 5.0
_EXTRA_SECONDS = 5.0
"""The replica's own deadline answers before this one."""


class Gateway:
    """An ASGI app in front of two pools, both behind `url`."""

    def __init__(self, url: str, seconds: float) -> None:
        self._url = url
        timeout = httpx.Timeout(seconds + _EXTRA_SECONDS, connect=_CONNECT_SECONDS)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        self._client = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False)
        self._lifespan = Router(lifespan=self._life)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._lifespan(scope, receive, send)
        else:
            try:
                await self._answer(scope, receive, send)
            except QvlError as error:
                await failures.send_error(send, error)

    @asynccontextmanager
    async def _life(self, _: object) -> AsyncIterator[None]:
        yield
        await self._client.aclose()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/health/live":
            await reply(send, 200, dump({"status": "live"}))
        elif scope["method"] in ("GET", "HEAD") and (
            path.rstrip("/") in (*READY_PATHS, *MODELS_PATHS) or (path + "/").startswith(_MODELS + "/")
        ):
            await self._both(scope, send)
        else:
            await self._forward(scope, receive, send)

    async def _both(self, scope: Scope, send: Send) -> None:
        """What the embedders answer, unless the rerankers have an error; lists of models joined.

        A single model that the embedders do not have may be the rerankers'.
        """
        path = scope["path"].rstrip("/")
        # No body goes with it, whatever came with one.
        headers = [each for each in _passed(scope["headers"]) if each[0] != b"content-length"]
        requests = [
            self._client.get(self._url + prefix + quote(path), headers=headers, timeout=_CHECK_SECONDS)
            for prefix in (EMBEDDERS, RERANKERS)
        ]
        first, second = await _answered(asyncio.gather(*requests))
        if path.startswith(_MODELS + "/"):
            chosen = second if first.status_code == NotFound.status else first
        else:
            chosen = first if first.is_error else second
        if chosen.is_error or path not in MODELS_PATHS:
            await reply(send, chosen.status_code, chosen.content)
            return
        found = [msgspec.json.decode(each.content) for each in (first, second)]
        await reply(send, 200, dump({**found[0], "data": found[0]["data"] + found[1]["data"]}))

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = ROOT if scope["path"] == "/" else scope["path"]
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        request = self._client.build_request(
            scope["method"],
            self._url + pool(path) + path + query.decode("latin-1"),
            headers=list(_passed(scope["headers"])),
            content=_body(receive),
        )
        answer = await _answered(self._client.send(request, stream=True))
        try:
            headers = [each for each in _passed(answer.headers.raw) if each[0] not in _RAYS]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await answer.aclose()


def pool(path: str) -> str:
    """The prefix of the pool that answers; a route that neither has gets the embedders' 404."""
    return RERANKERS if path.rstrip("/") in OTHERS[RERANKERS] else EMBEDDERS


def _passed(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    return ((lower, value) for name, value in headers if (lower := name.lower()) not in _HOP)


async def _answered(asked: Awaitable[T]) -> T:
    """An answer's head. One that breaks off later is not made up for: its first half has been passed on."""
    try:
        return await asked
    except httpx.HTTPError as error:
        raise Unavailable(
            f"the pool did not answer ({type(error).__name__}); ask again", code="pool_unreachable"
        ) from error


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientClosed("the client closed the connection")
        yield message.get("body", b"")
        if not message.get("more_body"):
            return
