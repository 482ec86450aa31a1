"""A rerank of more documents than one replica should take: one part here, the others on other replicas.

    documents ─► parts, in order ─► the first here, each other one through the front ─► merged in order

The front gives a part to the replica with the fewest connections, so the parts of one request spread. A small
request stays whole: its query is read once, and all its documents share the query's KV blocks.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import httpx
import numpy as np
import orjson

from qvl.engine.admission import cost
from qvl.engine.api.auth import KEY_HEADERS
from qvl.engine.api.edge import PART
from qvl.engine.api.replica import Replica
from qvl.engine.client.items import written
from qvl.engine.client.retry import error_of, lost, retry_after
from qvl.engine.client.wire import Reply, scores
from qvl.engine.config import MediaConfig
from qvl.engine.errors import Overloaded, QvlError
from qvl.engine.metrics import Metrics
from qvl.engine.protocol import RerankRequest, RerankResult

HEADERS: ContextVar[Iterable[tuple[bytes, bytes]]] = ContextVar("headers", default=())
"""Of the HTTP request at hand."""

_PATH = "/v1/rerank"
_PASSED = KEY_HEADERS | {b"x-request-id", b"traceparent", b"tracestate"}
_JSON = (b"content-type", b"application/json")
_CONNECT_SECONDS = 5.0
_LEAST_PAUSE_SECONDS = 1.0


class Split(Replica):
    """One that divides what is too much for it. `url` is the front; at most `most` parts.

    A part carries `seal`, so that the replica that gets it does not count it against its key's rate. It is
    not divided again, nor is what says that it is a part and has another seal.
    """

    def __init__(
        self, metrics: Metrics, url: str, tokens: int, most: int, seal: bytes, media: MediaConfig
    ) -> None:
        super().__init__(metrics)
        self._tokens, self._most, self._seal, self._media = tokens, most, seal, media
        # No time of its own: the request's deadline cancels the parts, and a closed connection their work.
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )

    async def rerank(self, request: RerankRequest) -> RerankResult:
        headers = list(HEADERS.get())
        is_part = any(name == PART for name, _ in headers)
        here, *others = [request] if is_part else divide(request, self._tokens, self._most, self._media)
        if not others:
            return await super().rerank(request)
        passed = [(PART, self._seal), *(each for each in headers if each[0] in _PASSED)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(super().rerank(here))]
                tasks += [group.create_task(self._elsewhere(each, passed)) for each in others]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return _merged([task.result() for task in tasks])

    async def close(self) -> None:
        await self._http.aclose()

    async def _elsewhere(self, part: RerankRequest, headers: Sequence[tuple[bytes, bytes]]) -> RerankResult:
        """Sent once more when its replica is lost; a refused one waits, for its siblings are at work."""
        body = await asyncio.to_thread(_body, part)
        again = 1
        while True:
            try:
                answer = await self._http.post(_PATH, content=body, headers=[*headers, _JSON])
            except httpx.TransportError as failure:
                error, gone, pause = lost(failure), True, 0.0
            else:
                if answer.is_success:
                    return _renamed(scores([Reply(0, len(part.documents), answer.content)]), part)
                error, pause = error_of(answer), max(retry_after(answer), _LEAST_PAUSE_SECONDS)
                gone = answer.status_code in (502, 503)
            again -= gone
            if again < 0 or not (gone or isinstance(error, Overloaded)):
                raise _named(error, part)
            await asyncio.sleep(0.0 if gone else pause)


def divide(request: RerankRequest, tokens: int, most: int, media: MediaConfig) -> list[RerankRequest]:
    """Parts of about equal cost; one while its documents cost no more than `tokens` (0: always one)."""
    costs = np.array([cost(each, media) for each in request.documents])
    total = int(costs.sum())
    count = min(most, len(costs), -(-total // tokens)) if tokens else 1
    if count < 2:
        return [request]
    middles = np.cumsum(costs) - costs / 2
    _, starts = np.unique((middles * count / total).astype(int), return_index=True)
    cuts = [*starts.tolist(), len(costs)]
    return [
        replace(request, documents=request.documents[start:end]) for start, end in itertools.pairwise(cuts)
    ]


def _merged(parts: Sequence[RerankResult]) -> RerankResult:
    """The answer to the whole; usage is what the parts used, and no more than unsplit: it counts pairs."""
    starts = np.cumsum([0, *(len(part.logits) for part in parts)]).tolist()
    return RerankResult(
        model=parts[0].model,
        logits=np.concatenate([part.logits for part in parts]),
        usage=reduce(add, (part.usage for part in parts)),
        errors={
            start + i: error
            for start, part in zip(starts, parts, strict=False)
            for i, error in part.errors.items()
        },
    )


def _body(part: RerankRequest) -> bytes:
    """The body of `POST /v1/rerank` that asks for it."""
    asked: dict[str, Any] = {
        "query": written(part.query),
        "documents": [written(each) for each in part.documents],
        "model": part.model,
        "instruction": part.instruction,
        "truncate": part.truncate,
        "max_tokens_per_doc": part.max_tokens_per_document,
        "on_error": part.on_error,
        "priority": part.priority,
        "raw_scores": True,
    }
    return orjson.dumps({key: value for key, value in asked.items() if value is not None})


def _renamed(result: RerankResult, part: RerankRequest) -> RerankResult:
    return replace(result, errors={i: _named(error, part) for i, error in result.errors.items()})


def _named(error: QvlError, part: RerankRequest) -> QvlError:
    """`documents[0]` of a part, and its query, as the caller of the whole named them."""
    found = re.match(r"documents\[(\d+)\]|query\b", error.param or "")
    if found:
        asked = part.documents[int(found[1])] if found[1] else part.query
        error.param = f"{asked.where}{found.string[found.end() :]}"
    return error
