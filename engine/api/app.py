"""The app: which route answers what, around it the edge."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from threading import Thread

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from qvl.engine.api import bodies, information, openapi
from qvl.engine.api.answering import Backend
from qvl.engine.api.auth import load_keys
from qvl.engine.api.cors import with_cors
from qvl.engine.api.edge import Edge
from qvl.engine.api.operations import OPERATIONS, Operation
from qvl.engine.api.replies import JSON, reply
from qvl.engine.api.service import Service
from qvl.engine.config import ServerConfig
from qvl.engine.errors import QvlError, UnsupportedMedia
from qvl.engine.search.index import Index
from qvl.engine.search.open import open_index
from qvl.engine.tracing import tracer

_INDEX_THREADS = 4
_log = logging.getLogger("qvl.server")


def create_app(
    engine: Service,
    config: ServerConfig,
    full: Callable[[], None] | None = None,
    seal: bytes | None = None,
) -> ASGIApp:
    """`create_edge`, which pages of `--cors-origin` may ask too."""
    return with_cors(create_edge(engine, config, full, seal), config.cors_origin)


def create_edge(
    engine: Service,
    config: ServerConfig,
    full: Callable[[], None] | None = None,
    seal: bytes | None = None,
) -> Edge:
    """An ASGI app that answers with the engine; it neither starts nor stops it. Raises ConfigError,
    and Unavailable when nobody answers where the index is to be.

    `full` is told before a refusal for load leaves, where other replicas answer at the same port. `seal` is
    what a part of another request carries, so that it is not counted against its key's rate again.
    """
    limits = config.engine.limits
    keys = load_keys(config)
    index = open_index(config.index, key=config.index_key, make=True) if config.index else None
    threads = ThreadPoolExecutor(_INDEX_THREADS, "qvl-index") if index is not None else None
    if index is not None:
        # While the models load. A daemon: a server that ends does not wait for it.
        Thread(target=_loaded, args=(index, config.index), name="qvl-index-load", daemon=True).start()
    backend = Backend(engine, limits, index, threads)
    engine.metrics.tracer = tracer(config.otlp)

    @asynccontextmanager
    async def life(_: object) -> AsyncIterator[None]:
        yield
        if threads is not None and index is not None:
            index.close()  # or they would wait for one that is being loaded
            threads.shutdown(cancel_futures=True)

    posts = [
        Route(path, _Post(operation, backend), methods=["POST"])
        for operation in OPERATIONS
        for path in operation.paths
    ]
    router = Router(
        [*posts, *information.routes(engine, limits, keyed=bool(keys))],
        redirect_slashes=False,
        lifespan=life,
    )
    return Edge(
        _Routes({route.path: route.app for route in posts}, router),
        openapi.route,
        keys,
        config.request_seconds,
        engine.metrics,
        bodies.Bodies(limits.bodies_bytes, engine.metrics.held("bodies", limits.bodies_bytes)),
        full,
        seal,
    )


@dataclass(frozen=True, slots=True)
class _Routes:
    """A short cut before the router, which matches patterns, one after the other."""

    posts: Mapping[str, ASGIApp]
    router: Router

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        post = self.posts.get(scope["path"]) if scope.get("method") == "POST" else None
        return (post or self.router)(scope, receive, send)


@dataclass(frozen=True, slots=True)
class _Post:
    """The endpoint of one operation, without a request or a response object in between."""

    operation: Operation
    backend: Backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _require_json(scope)
        raw = await bodies.read(scope, receive, self.backend.limits)
        await reply(send, 200, await self.operation.answer(self.backend, raw))


def _loaded(index: Index, where: str | None) -> None:
    with suppress(QvlError):  # which the first search will tell
        index.load()
        if not len(index):
            _log.warning(
                "the index %s holds no items yet: `qvl search add FILE --index %s` fills it", where, where
            )


def _require_json(scope: Scope) -> None:
    """A body that says it is something else is refused; one that says nothing is taken for JSON."""
    kinds = [value for name, value in scope["headers"] if name == b"content-type"]
    if len(kinds) > 1:
        raise UnsupportedMedia("several Content-Type headers; send one", code="unsupported_content_type")
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise UnsupportedMedia(
                "compressed bodies are not accepted; send plain JSON", code="unsupported_content_encoding"
            )
    if not kinds:
        return
    kind, *parameters = kinds[0].decode("latin-1").lower().split(";")
    kind = kind.strip()
    charsets = [
        each.partition("=")[2].strip(' "') for each in parameters if each.strip().startswith("charset")
    ]
    if (kind != JSON and not kind.endswith("+json")) or any(
        charset not in ("utf-8", "utf8", "us-ascii", "ascii") for charset in charsets
    ):
        raise UnsupportedMedia(
            "the body must be JSON in UTF-8: send `Content-Type: application/json`",
            code="unsupported_content_type",
        )
