"""The GET routes: whether the server lives and is ready, what it serves, its metrics, its schema."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qvl.engine import names
from qvl.engine.api import openapi
from qvl.engine.api.replies import JSON
from qvl.engine.api.service import Service
from qvl.engine.config import Limits
from qvl.engine.errors import NotFound, Unavailable
from qvl.engine.metrics import CONTENT_TYPE
from qvl.engine.protocol import ModelCard
from qvl.engine.response import dump

READY_PATHS = ("/health/ready", "/health", "/ping")
"""Ours, that of vLLM, TEI and Infinity, and SageMaker's."""
MODELS_PATHS = ("/v1/models", "/models")
"""OpenAI's, and Infinity's, whose clients have no version in their URL."""
_HEALTH_CODES = ("starting", "draining", "stopped")
_XINFERENCE = {"embedder": {"model_type": "embedding"}, "reranker": {"model_type": "rerank"}}
_TEI_KINDS: dict[str, Any] = {
    "embedder": {"embedding": {"pooling": "last_token"}},
    "reranker": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
}


def routes(engine: Service, limits: Limits, *, keyed: bool) -> list[Route]:
    return [*_health(engine), *_models(engine, limits), *_pages(engine, keyed=keyed)]


def _health(engine: Service) -> list[Route]:
    async def live(_: Request) -> Response:
        return _json({"status": "live"})

    async def ready(_: Request) -> Response:
        health = await engine.health()
        if not health.ready:
            code = health.reason if health.reason in _HEALTH_CODES else "engine_dead"
            raise Unavailable(f"not ready: {health.reason}", code=code)
        return _json({"status": "ready"})

    return [Route("/health/live", live), *(Route(path, ready) for path in READY_PATHS)]


def _models(engine: Service, limits: Limits) -> list[Route]:
    created = int(time.time())

    def described(card: ModelCard) -> dict[str, object]:
        return {
            "id": card.id,
            "object": "model",
            "created": created,
            "owned_by": "qvl",
            "role": card.role,
            "dimensions": card.dimensions,
            "max_length": card.max_length,
            "dtype": card.dtype,
            **_XINFERENCE[card.role],
            "model_name": card.id,
            "max_tokens": card.max_length,
            "max_model_len": card.max_length,
            **({"revision": card.revision} if card.revision else {}),
        }

    async def models(_: Request) -> Response:
        return _json({"object": "list", "data": [described(card) for card in engine.models()]})

    async def model(request: Request) -> Response:
        asked, cards = request.path_params["id"], engine.models()
        known = {name: card for card in reversed(cards) for name in card.also}  # the first of them wins
        known |= {card.id: card for card in cards}
        plain = names.without_suffix(asked, known)
        card = known.get(plain or asked)
        if card is not None and (plain is None or card.role == "embedder"):
            return _json({**described(card), "id": asked})
        raise NotFound(
            f"no model {asked[:80]!r} here; /v1/models lists those there are",
            param="model",
            code="model_not_found",
        )

    async def info(_: Request) -> Response:
        card = engine.models()[0]
        return _json(
            {
                "model_id": card.id,
                "model_dtype": card.dtype,
                "model_type": _TEI_KINDS[card.role],
                "max_input_length": card.max_length,
                "max_client_batch_size": limits.items if card.role == "embedder" else limits.documents,
                "auto_truncate": True,
                "version": version("qvl"),
            }
        )

    listed = [Route(path, models) for path in MODELS_PATHS]
    return [*listed, Route("/v1/models/{id:path}", model), Route("/info", info)]


def _pages(engine: Service, *, keyed: bool) -> list[Route]:
    number = version("qvl")
    found = openapi.document(number, keyed=keyed)
    document, page = dump(found), openapi.page(found)

    async def metrics(_: Request) -> Response:
        return Response(engine.metrics.render(), headers={"content-type": CONTENT_TYPE})

    async def built(_: Request) -> Response:
        return _json({"version": number})

    async def schema(_: Request) -> Response:
        return Response(document, media_type=JSON)

    async def docs(_: Request) -> Response:
        return Response(page, media_type="text/html")

    answers = {"/metrics": metrics, "/version": built, "/openapi.json": schema, "/docs": docs}
    return [Route(path, answer) for path, answer in answers.items()]


def _json(payload: object) -> Response:
    return Response(dump(payload), media_type=JSON)
