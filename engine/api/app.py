"""The Litestar app: routes, body limits, and the one exception handler."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, TypeAlias

from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.types import Scope

from qvl.engine.api import failures, openapi
from qvl.engine.api.auth import load_keys
from qvl.engine.api.bodies import Bodies
from qvl.engine.api.cors import shared
from qvl.engine.api.edge import Call, Edge
from qvl.engine.api.operations import OPERATIONS, Backend, Operation
from qvl.engine.api.service import Service
from qvl.engine.config import Limits, ServerConfig
from qvl.engine.errors import Unavailable, UnsupportedMedia
from qvl.engine.metrics import CONTENT_TYPE
from qvl.engine.response import dump
from qvl.engine.search.open import open_index
from qvl.engine.tracing import tracer

_INDEX_THREADS = 4
_JSON = "application/json"
_HEALTH_CODES = ("starting", "draining", "stopped")

HttpRequest: TypeAlias = Request[Any, Any, State]


def create_app(engine: Service, config: ServerConfig) -> Litestar:
    """An ASGI app that answers with the engine; it neither starts nor stops it. Raises ConfigError."""
    limits = config.engine.limits
    keys = load_keys(config)
    index = open_index(config.index, key=config.index_key, make=True) if config.index else None
    threads = ThreadPoolExecutor(_INDEX_THREADS, "qvl-index") if index else None
    backend = Backend(engine, limits, index, threads)
    engine.metrics.tracer = tracer(config.otlp)
    app = Litestar(
        route_handlers=[
            *(_post(operation, backend) for operation in OPERATIONS),
            *_health(engine),
            *_information(engine, keyed=bool(keys)),
        ],
        exception_handlers={Exception: _failed(limits)},
        request_max_body_size=limits.body_bytes,
        openapi_config=None,
        logging_config=None,
        on_shutdown=[threads.shutdown, index.close] if threads and index else [],
    )
    edge = Edge(
        app.asgi_handler,
        openapi.ROUTES,
        keys,
        config.request_seconds,
        engine.metrics,
        Bodies(limits.bodies_bytes),
        one_of_many=config.replicas > 1,
    )
    app.asgi_handler = shared(edge, config.cors_origin)
    return app


def _post(operation: Operation, backend: Backend) -> HTTPRouteHandler:
    @post(list(operation.paths), status_code=200)
    async def handler(request: HttpRequest) -> Response[bytes]:
        _require_json(request.scope)
        answer = await operation.answer(backend, await request.body())
        return Response(answer, media_type=_JSON)

    return handler


def _health(engine: Service) -> list[HTTPRouteHandler]:
    @get("/health/live")
    async def live() -> Response[bytes]:
        return Response(dump({"status": "live"}), media_type=_JSON)

    @get("/health/ready")
    async def ready() -> Response[bytes]:
        health = await engine.health()
        if not health.ready:
            code = health.reason if health.reason in _HEALTH_CODES else "engine_died"
            raise Unavailable(f"not ready: {health.reason}", code=code)
        return Response(dump({"status": "ready"}), media_type=_JSON)

    return [live, ready]


def _information(engine: Service, *, keyed: bool) -> list[HTTPRouteHandler]:
    created = int(time.time())
    found = openapi.document(version("qvl"), keyed=keyed)
    document, page = dump(found), openapi.page(found)

    @get("/v1/models")
    async def models() -> Response[bytes]:
        data = [
            {
                "id": card.id,
                "object": "model",
                "created": created,
                "owned_by": "qvl",
                "role": card.role,
                "dimensions": card.dimensions,
                "max_length": card.max_length,
                "dtype": card.dtype,
            }
            for card in engine.models()
        ]
        return Response(dump({"object": "list", "data": data}), media_type=_JSON)

    @get("/metrics")
    async def metrics() -> Response[bytes]:
        return Response(engine.metrics.render(), media_type=CONTENT_TYPE)

    @get("/openapi.json")
    async def schema() -> Response[bytes]:
        return Response(document, media_type=_JSON)

    @get("/docs")
    async def docs() -> Response[str]:
        return Response(page, media_type=MediaType.HTML)

    return [models, metrics, schema, docs]


def _failed(limits: Limits) -> Any:
    def handler(request: HttpRequest, failure: Exception) -> Response[bytes]:
        call = Call.of(request.scope)
        error = failures.to_error(failure, call.route, call.id, limits.body_bytes)
        call.error = error
        allow = getattr(failure, "headers", None) or {}
        return Response(
            dump(error.body()),
            status_code=error.status,
            media_type=_JSON,
            headers={**allow, **failures.headers(error)},
        )

    return handler


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
    if (kind != _JSON and not kind.endswith("+json")) or any(
        charset not in ("utf-8", "utf8", "us-ascii", "ascii") for charset in charsets
    ):
        raise UnsupportedMedia(
            "the body must be JSON in UTF-8: send `Content-Type: application/json`",
            code="unsupported_content_type",
        )
