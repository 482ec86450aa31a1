"""Requests built and replies read, as pure functions: the two clients differ only in how they wait."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from qvl.engine.client.items import Item, native
from qvl.engine.client.retry import BY_CODE, Policy
from qvl.engine.errors import QvlError, Unavailable, Unprocessable
from qvl.engine.protocol import EmbedResult, ModelCard, RerankResult, Usage

AFFINITY = "x-qvl-affinity"
"""Header with the name of what requests share: one replica of many gets them all."""

T = TypeVar("T")
Entry = TypeVar("Entry", "_Vector", "_Score")


@dataclass(frozen=True, slots=True)
class Part:
    """One request of a call: entries `start` to `start + count` of the caller's list."""

    path: str
    body: bytes | None
    start: int
    count: int
    affinity: str | None = None

    def headers(self, failures: int) -> dict[str, str]:
        """Sent again it may go anywhere: the replica that has what it needs may be the one that is full."""
        return {} if self.affinity is None or failures else {AFFINITY: self.affinity}

    @property
    def line(self) -> tuple[str, str]:
        return ("GET" if self.body is None else "POST", self.path)

    def reply(self, body: bytes) -> Reply:
        return Reply(self.start, self.count, body)


@dataclass(frozen=True, slots=True)
class Reply:
    start: int
    count: int
    body: bytes


class _Error(msgspec.Struct):
    message: str
    code: str | None = None
    param: str | None = None


class _Vector(msgspec.Struct):
    index: int
    embedding: str | None = None
    error: _Error | None = None


class _Vectors(msgspec.Struct):
    data: list[_Vector]
    model: str
    usage: dict[str, Any] = {}


class _Score(msgspec.Struct):
    index: int
    relevance_score: float | None = None
    error: _Error | None = None


class _Scores(msgspec.Struct):
    results: list[_Score]
    model: str = ""
    usage: dict[str, Any] = {}


class _Model(msgspec.Struct):
    id: str
    role: str = "embedder"
    dimensions: int = 0
    max_length: int = 0
    dtype: str = ""
    revision: str | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


def embed_parts(items: Iterable[Item], options: dict[str, Any], policy: Policy) -> Iterator[Part]:
    """The requests for `items`, encoded one at a time as they are asked for."""
    asked = {**_given(options), "encoding_format": "base64"}
    for start, chunk in _chunks(items, "input", policy.items, policy.body_bytes):
        body = orjson.dumps({"input": [orjson.Fragment(item) for item in chunk], **asked})
        name = None if len(chunk) > 1 else _name(chunk[0])
        yield Part("/v1/embeddings", body, start, len(chunk), name)


def rerank_parts(
    query: Item, documents: Iterable[Item], options: dict[str, Any], policy: Policy
) -> Iterator[Part]:
    """Logits of all documents: parts can be merged, and the scores follow from them."""
    asked = {**_given(options), "raw_scores": True, "return_documents": False}
    spelled = orjson.dumps(native(query, "query"))
    asked["query"], name = orjson.Fragment(spelled), _name(spelled)
    for start, chunk in _chunks(documents, "documents", policy.documents, policy.body_bytes):
        body = orjson.dumps({"documents": [orjson.Fragment(item) for item in chunk], **asked})
        # The place too: parts of one call go side by side.
        yield Part("/v1/rerank", body, start, len(chunk), f"{name}-{start}")


def _name(item: bytes) -> str:
    return hashlib.blake2b(item, digest_size=16).hexdigest()


def search_part(body: dict[str, Any]) -> Part:
    asked = _given(body) | {"query": native(body["query"], "query")}
    return Part("/v1/search", orjson.dumps(asked), 0, 0)


def search_reply(replies: Sequence[Reply]) -> dict[str, Any]:
    return _decode(replies[0], dict[str, Any])


def embeddings(replies: Sequence[Reply], dimensions: int | None) -> EmbedResult:
    """One result for all parts; the rows of failed items are zero."""
    rows: list[npt.NDArray[np.float32] | None] = []
    errors: dict[int, QvlError] = {}
    usage, model = Usage(), ""
    for reply in replies:
        decoded = _decode(reply, _Vectors)
        usage, model = usage + _usage(decoded.usage), decoded.model
        for entry in _in_order(decoded.data, reply):
            if entry.embedding is None:
                errors[len(rows)] = _entry_error(entry.error, reply.start)
                rows.append(None)
            else:
                rows.append(np.frombuffer(base64.b64decode(entry.embedding), dtype="<f4"))
    width = next((row.size for row in rows if row is not None), dimensions or 0)
    vectors = np.zeros((len(rows), width), dtype=np.float32)
    for i, row in enumerate(rows):
        if row is not None:
            vectors[i] = row
    return EmbedResult(model=model, vectors=vectors, usage=usage, errors=errors)


def scores(replies: Sequence[Reply]) -> RerankResult:
    logits: list[float] = []
    errors: dict[int, QvlError] = {}
    usage, model = Usage(), ""
    for reply in replies:
        decoded = _decode(reply, _Scores)
        usage, model = usage + _usage(decoded.usage), decoded.model
        for entry in _in_order(decoded.results, reply):
            if entry.relevance_score is None:
                errors[len(logits)] = _entry_error(entry.error, reply.start)
            logits.append(-np.inf if entry.relevance_score is None else entry.relevance_score)
    return RerankResult(model=model, logits=np.asarray(logits, np.float32), usage=usage, errors=errors)


def model_cards(replies: Sequence[Reply]) -> list[ModelCard]:
    cards = [card for reply in replies for card in _decode(reply, _Models).data]
    return [
        ModelCard(
            **msgspec.structs.asdict(card) | {"role": "reranker" if card.role == "reranker" else "embedder"}
        )
        for card in cards
    ]


@contextmanager
def renumbered(part: Part) -> Iterator[None]:
    """Errors raised within speak of the caller's list, not of this part of it."""
    try:
        yield
    except QvlError as error:
        raise renumber(error, part.start) from None


def renumber(error: QvlError, start: int) -> QvlError:
    """`input[3]` of a part is `input[start + 3]` of the caller's list."""

    def moved(match: re.Match[str]) -> str:
        return f"{match[1]}[{int(match[2]) + start}]"

    pattern = r"\b(input|documents)\[(\d+)\]"
    error.message = re.sub(pattern, moved, error.message)
    error.args = (error.message,)
    error.param = error.param and re.sub(pattern, moved, error.param)
    return error


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _chunks(
    items: Iterable[Item], where: str, most: int, most_bytes: int
) -> Iterator[tuple[int, list[bytes]]]:
    chunk: list[bytes] = []
    size = start = 0
    for index, item in enumerate(items):
        encoded = orjson.dumps(native(item, f"{where}[{index}]"))
        if chunk and (len(chunk) == most or size + len(encoded) > most_bytes):
            yield start, chunk
            chunk, size, start = [], 0, index
        chunk.append(encoded)
        size += len(encoded)
    if chunk:
        yield start, chunk


def _decode(reply: Reply, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(reply.body, type=shape)
    except msgspec.DecodeError as error:
        raise Unavailable(f"the server's reply makes no sense: {error}", code="bad_reply") from None


def _in_order(entries: list[Entry], reply: Reply) -> list[Entry]:
    ordered = sorted(entries, key=lambda entry: entry.index)
    if [entry.index for entry in ordered] != list(range(reply.count)):
        raise Unavailable(f"the server answered {len(entries)} of {reply.count} entries", code="bad_reply")
    return ordered


def _entry_error(error: _Error | None, start: int) -> QvlError:
    if error is None:
        return Unprocessable("the server gave neither a result nor an error")
    cls = BY_CODE.get(error.code or "", Unprocessable)
    return renumber(cls(error.message, param=error.param, code=error.code), start)


def _usage(usage: dict[str, Any]) -> Usage:
    details = usage.get("prompt_tokens_details") or {"text_tokens": usage.get("total_tokens", 0)}
    return Usage(**{key: value for key, value in details.items() if key in Usage.__slots__})
