"""The routes that are not one pool's: what both know together, the models and readiness, is joined here.

HAProxy sends every route that embeds or ranks straight to its pool (`haproxy.py`). What is left is a question
about the server or a mistake: the embedders answer it, from its head alone.
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
from qvl.engine.errors import NotFound, QvlError, Unavailable
from qvl.engine.response import dump
from qvl.ray_serve.haproxy import EMBEDDERS, RERANKERS

T = TypeVar("T")

_HOP = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect", b"host"}
)
_OURS = frozenset({b"server", b"date", b"x-request-id", b"content-length", b"content-encoding"})
"""Put on the gateway's answer by Ray once more, or about a body that is read and may be another."""
_MODELS = "/v1/models"
_ANSWER_SECONDS = 5.0


class Gateway:
    """An ASGI app in front of two pools, both behind `url`."""

    def __init__(self, url: str) -> None:
        self._url = url
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        self._client = httpx.AsyncClient(timeout=_ANSWER_SECONDS, limits=limits, trust_env=False)
        self._lifespan = Router(lifespan=self._life)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._lifespan(scope, receive, send)
        else:
            try:
                await self._answer(scope, send)
            except QvlError as error:
                await failures.send_error(send, error)

    @asynccontextmanager
    async def _life(self, _: object) -> AsyncIterator[None]:
        yield
        await self._client.aclose()

    async def _answer(self, scope: Scope, send: Send) -> None:
        path = scope["path"].rstrip("/") or "/"
        if path == "/health/live":
            await reply(send, 200, dump({"status": "live"}))
            return
        query = "?" + scope["query_string"].decode("latin-1") if scope["query_string"] else ""
        # The server leaves the body out where HEAD was asked; its length is still told.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        lists = method == "GET" and path in MODELS_PATHS
        both = lists or (method == "GET" and (path in READY_PATHS or path.startswith(_MODELS + "/")))
        requests = [
            self._client.request(
                method,
                self._url + prefix + quote(path) + query,
                # Not the length of a body that does not go with it: the pool would wait for that.
                headers=[each for each in _passed(scope["headers"]) if each[0] != b"content-length"],
            )
            for prefix in ((EMBEDDERS, RERANKERS) if both else (EMBEDDERS,))
        ]
        answers = await _answered(asyncio.gather(*requests))
        chosen = _chosen(path, *answers)
        body = _joined(*answers) if lists and not chosen.is_error else chosen.content
        headers = [each for each in _passed(chosen.headers.raw) if each[0] not in _OURS]
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": chosen.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _chosen(path: str, first: httpx.Response, second: httpx.Response | None = None) -> httpx.Response:
    """What the embedders answer, unless the rerankers, where they were asked too, have an error.

    A single model that the embedders do not have may be the rerankers'.
    """
    if second is None:
        return first
    if path.startswith(_MODELS + "/"):
        return second if first.status_code == NotFound.status else first
    return first if first.is_error else second


def _joined(first: httpx.Response, second: httpx.Response) -> bytes:
    """Two lists of models as one."""
    found = [msgspec.json.decode(each.content) for each in (first, second)]
    return dump({**found[0], "data": found[0]["data"] + found[1]["data"]})


def _passed(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    return ((lower, value) for name, value in headers if (lower := name.lower()) not in _HOP)


async def _answered(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except httpx.HTTPError as error:
        raise Unavailable(
            f"the pool did not answer ({type(error).__name__}); ask again", code="pool_unreachable"
        ) from error
