"""Lines of OpenAI's batch API, as `vllm run-batch` takes them: requests, each answered as its route answers.

{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"input": "a cat"}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

import orjson

from qvl.engine.errors import BadRequest, DeadlineExceeded, QvlError, RequestError, Unauthorized, short
from qvl.engine.jobs import pipeline
from qvl.engine.jobs.answers import Answers
from qvl.engine.jobs.lines import Line, read
from qvl.engine.jobs.tasks import MOST_OF_AN_ID, Parsed, Row, parse, unknown_field
from qvl.engine.jobs.work import Mark

_PATH = re.compile(r"/([\w-][\w.-]*(/[\w-][\w.-]*)*)?", re.ASCII)
_KEYS = frozenset({"custom_id", "method", "url", "body"})


@dataclass(frozen=True, slots=True)
class Batch:
    answers: Answers
    seen: set[int] = field(default_factory=set)
    """Of every custom_id so far its hash: OpenAI takes each once."""

    files: ClassVar[tuple[str, ...]] = ("rows.jsonl",)
    most: ClassVar[int | None] = 1

    async def answer(self, batch: Sequence[Parsed]) -> list[Row | QvlError]:
        return [await self._one(each) for each in batch]

    def recall(self, source: Path, mark: Mark) -> None:
        """The ids of the lines that an earlier run has answered."""
        for line in takewhile(lambda line: line.index < mark.index, read(source)):
            with suppress(BadRequest):
                self.note(parse(line))

    def note(self, line: Parsed) -> None:
        """Raises BadRequest for an id that came before."""
        if line.own is None:
            return
        if (number := hash(str(line.own))) in self.seen:
            raise BadRequest(
                f"the custom_id {short(str(line.own))!r} came before; give each request its own",
                param="custom_id",
                code="duplicate_custom_id",
            )
        self.seen.add(number)

    async def _one(self, line: Parsed) -> Row | QvlError:
        try:
            self.note(line)
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


def told(line: Line, error: QvlError) -> dict[str, Any]:
    """As OpenAI's error file has it, beside what that of every job has."""
    record = pipeline.told(line, error)
    own = None
    with suppress(ValueError, AttributeError):
        own = orjson.loads(line.data).get("custom_id")
    response = {
        "status_code": error.status,
        "request_id": f"batch_req_{line.index}",
        "body": {"error": record["error"]},
    }
    return {
        **record,
        "custom_id": short(own, MOST_OF_AN_ID) if isinstance(own, str) else own,
        "response": response,
    }


def request_of(value: Any) -> tuple[str, Any]:
    """Its path and body. Raises BadRequest."""
    if not isinstance(value, Mapping) or "url" not in value or "body" not in value:
        raise BadRequest('a line must be a request: {"custom_id", "method": "POST", "url", "body"}')
    if unknown := sorted(value.keys() - _KEYS):
        raise unknown_field(unknown[0])
    if value.get("custom_id", "") is None:
        raise BadRequest("custom_id is null; give a string, or leave it out", param="custom_id")
    if value.get("method", "POST") != "POST":
        raise BadRequest("method must be POST", param="method")
    if not isinstance(value["url"], str) or not _PATH.fullmatch(value["url"]):
        raise BadRequest("url must be a route alone, as /v1/embeddings", param="url")
    return value["url"], value["body"]
