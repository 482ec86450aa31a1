"""`/openapi.json` and `/docs`: POST from the table that routes them, GET from one of its own (`_GETS`).

The schemas are msgspec's own: they are what the decoder enforces, with bounds, and unknown fields null or
forbidden. The docs page is one file with nothing loaded from elsewhere.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any, NotRequired, TypedDict

import msgspec

from qvl.engine.api.operations import OPERATIONS, Operation

_ERRORS = {
    400: "Malformed JSON, a wrong type, an unknown field or a bad value.",
    401: "No API key, or not one of this server's.",
    403: "The API key is for something else (only=metrics).",
    404: "No such model.",
    413: "Over a limit on bytes, items, pixels, frames or seconds.",
    415: "Not JSON, or media of a kind that is not accepted.",
    422: "Well formed, but cannot be answered: undecodable media, a refused URL, an item that is too long.",
    429: "Too much work at once; see Retry-After.",
    500: "A defect of this server; its log has the request id.",
    503: "Starting, draining, or the engine died; see Retry-After.",
    504: "Not answered within the deadline.",
}


class ErrorDetail(TypedDict):
    message: str
    type: str
    code: str
    param: str | None


class ErrorBody(TypedDict):
    error: ErrorDetail
    detail: str
    """The message again, where Voyage's, Jina's and FastAPI's clients look for it."""
    code: str
    message: str
    """Again, for those of DashScope."""


class Model(TypedDict):
    id: str
    object: str
    created: int
    owned_by: str
    role: str
    dimensions: int
    max_length: int
    dtype: str
    revision: NotRequired[str]
    """The commit of the hub's that its files are from."""


class ModelList(TypedDict):
    object: str
    data: list[Model]


class Info(TypedDict):
    """TEI's, of the first model."""

    model_id: str
    model_dtype: str
    model_type: dict[str, dict[str, Any]]
    max_input_length: int
    max_client_batch_size: int
    auto_truncate: bool
    version: str


class State(TypedDict):
    status: str


class Version(TypedDict):
    version: str


_MODELS, _MODEL = "/v1/models", "/v1/models/{id}"
_READY = "The models are loaded, and the server is not stopping"


_GETS: tuple[tuple[str, str, Any, tuple[int, ...]], ...] = (
    (_MODELS, "The models served here", ModelList, (401, 403, 503)),
    ("/models", "The same", ModelList, (401, 403, 503)),
    (_MODEL, "One of them", Model, (401, 403, 404, 503)),
    ("/info", "The first of them, in TEI's words", Info, (401, 403, 503)),
    ("/version", "The version of this server", Version, (401, 403)),
    ("/health/live", "The process is up", State, ()),
    ("/health/ready", _READY, State, (503,)),
    ("/health", _READY, State, (503,)),
    ("/ping", _READY, State, (503,)),
    ("/metrics", "Prometheus metrics", None, (401,)),
    ("/openapi.json", "This document", dict[str, Any], (401, 403)),
    ("/docs", "This document for people", None, (401, 403)),
)

ROUTES = frozenset(path for operation in OPERATIONS for path in operation.paths) | {
    path for path, *_ in _GETS
}


def route(path: str) -> str:
    """The route that a path is of, or `other`."""
    if path in ROUTES:
        return path
    return _MODEL if path.startswith(_MODELS + "/") else "other"


def document(version: str, *, keyed: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    types: list[Any] = [each for row in OPERATIONS for each in (row.body, *_answers(row))]
    types += [ErrorBody, *(answer for _, _, answer, _ in _GETS if answer is not None)]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    for schema in components.values():
        if schema.get("additionalProperties") is False:
            schema["additionalProperties"] = {"type": "null"}
    by_type = dict(zip(types, schemas, strict=True))
    failure = by_type[ErrorBody]
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        answers = [by_type[each] for each in _answers(operation)]
        answer = {"anyOf": answers} if len(answers) > 1 else answers[0]
        for path in operation.paths:
            paths[path] = {"post": _post(operation, path, by_type[operation.body], answer, failure)}
    for path, summary, kind, errors in _GETS:
        schema = by_type[kind] if kind is not None else None
        paths[path] = {"get": _get(path, summary, schema, errors, failure)}
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "qvl", "version": version, "summary": "Qwen3-VL embeddings and reranking"},
        "paths": paths,
        "components": {"schemas": components},
    }
    if keyed:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
    return found


def _answers(operation: Operation) -> tuple[Any, ...]:
    return operation.response if isinstance(operation.response, tuple) else (operation.response,)


def _post(operation: Operation, path: str, body: Any, answer: Any, failure: Any) -> dict[str, Any]:
    return {
        "operationId": "post" + path.replace("/", "_"),
        "summary": operation.summary,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": body, "example": operation.example}},
        },
        "responses": {
            "200": {"description": "The answer", "content": {"application/json": {"schema": answer}}},
            **_failures(tuple(_ERRORS), failure),
        },
    }


def _get(path: str, summary: str, schema: Any, errors: tuple[int, ...], failure: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}} if schema is not None else _text(path)
    identity = {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "[^/]"},
    }
    return {
        "operationId": "get" + re.sub(r"\W", "_", path),
        "summary": summary,
        **({"parameters": [identity]} if path == _MODEL else {}),
        "responses": {"200": {"description": summary, "content": content}, **_failures(errors, failure)},
    }


def _text(path: str) -> dict[str, Any]:
    return {"text/html" if path == "/docs" else "text/plain": {"schema": {"type": "string"}}}


def _failures(statuses: tuple[int, ...], schema: Any) -> dict[str, Any]:
    return {
        str(status): {"description": _ERRORS[status], "content": {"application/json": {"schema": schema}}}
        for status in statuses
    }


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
summary { cursor: pointer; padding: .4rem 0; } code { font-weight: 600; }
pre { background: #8881; padding: .8rem; overflow: auto; }
"""


def page(found: dict[str, Any]) -> str:
    """The document as one HTML page that works without a network."""
    sections = [
        _section(method, path, operation)
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = html.escape(json.dumps(found["components"]["schemas"], indent=2))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>qvl</title>"
        f"<style>{_STYLE}</style><h1>qvl {html.escape(found['info']['version'])}</h1>"
        '<p>The machine-readable form is <a href="openapi.json">/openapi.json</a>.</p>'
        f"{''.join(sections)}<h2>Schemas</h2><details><summary>All of them</summary><pre>{schemas}</pre>"
        "</details></html>"
    )


def _section(method: str, path: str, operation: dict[str, Any]) -> str:
    inside = ""
    if "requestBody" in operation:
        media = operation["requestBody"]["content"]["application/json"]
        example = json.dumps(media["example"])
        inside = (
            f"<pre>curl http://HOST:PORT{path} -H 'Content-Type: application/json' \\\n"
            f"  -d '{html.escape(example)}'</pre><p>Body: {html.escape(media['schema']['$ref'])}</p>"
        )
    statuses = "".join(
        f"<li>{status}: {html.escape(response['description'])}"
        for status, response in operation["responses"].items()
    )
    return (
        f"<details><summary><code>{method.upper()} {path}</code> "
        f"{html.escape(operation['summary'])}</summary>"
        f"{inside}<ul>{statuses}</ul></details>"
    )
