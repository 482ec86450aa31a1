"""Native items of a file as the engine's nouns, read by the same rules as a request's body."""

from __future__ import annotations

from typing import Any

import orjson

from qvl.engine.dialects import items
from qvl.engine.dialects.fields import Body, decode
from qvl.engine.protocol import Content


class _Input(Body):
    input: list[str | items.Item]


class _Pair(Body):
    query: str | items.Document
    documents: list[str | items.Document]


def contents(values: list[Any]) -> tuple[Content, ...]:
    return items.contents(decode(_Input, orjson.dumps({"input": values})).input, "input")


def pair(query: Any, documents: list[Any]) -> tuple[Content, tuple[Content, ...]]:
    body = decode(_Pair, orjson.dumps({"query": query, "documents": documents}))
    return items.content(body.query, "query"), items.contents(body.documents, "documents")
