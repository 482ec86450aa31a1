"""Lines of OpenAI's batch API, as `vllm run-batch` takes them: requests, each answered as its route answers.

{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"input": "a cat"}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from qvl.engine.errors import BadRequest, DeadlineExceeded, QvlError, RequestError, Unauthorized
from qvl.engine.jobs.answers import Answers
from qvl.engine.jobs.tasks import Parsed, Row

_PATH = re.compile(r"/[!-~]{0,255}")
_KEYS = frozenset({"custom_id", "method", "url", "body"})


@dataclass(frozen=True, slots=True)
class Batch:
    answers: Answers

    files: ClassVar[tuple[str, ...]] = ("rows.jsonl",)
    most: ClassVar[int | None] = 1

    async def answer(self, batch: Sequence[Parsed]) -> list[Row | QvlError]:
        return [await self._one(each) for each in batch]

    async def _one(self, line: Parsed) -> Row | QvlError:
        try:
            path, body = request_of(line.value)
        except BadRequest as error:
            return error
        try:
            answer = await self.answers.post(path, orjson.dumps(body))
        except Unauthorized:
            raise
        except (RequestError, DeadlineExceeded) as error:
            error.message = re.sub(r"\b(input|documents)\[", r"body.\1[", error.message)
            error.param = error.param and f"body.{error.param}"
            return error
        number = f"batch_req_{line.index}"
        response = {"status_code": 200, "request_id": number, "body": orjson.loads(answer)}
        row = {"id": number, "custom_id": line.id, "response": response, "error": None}
        return (orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE),)


def request_of(value: Any) -> tuple[str, Any]:
    """Its path and body. Raises BadRequest."""
    if not isinstance(value, Mapping) or "url" not in value or "body" not in value:
        raise BadRequest('a line must be a request: {"custom_id", "method": "POST", "url", "body"}')
    if unknown := sorted(value.keys() - _KEYS):
        raise BadRequest(f"unknown field {unknown[0]!r}", param=unknown[0], code="unknown_field")
    if value.get("method", "POST") != "POST":
        raise BadRequest("method must be POST", param="method")
    if not isinstance(value["url"], str) or not _PATH.fullmatch(value["url"]):
        raise BadRequest("url must be a route, as /v1/embeddings", param="url")
    return value["url"], value["body"]
