"""What is asked about each line, and the pieces that its row leaves in the work folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

import msgspec
import orjson

from qvl.engine.errors import BadRequest, QvlError, short
from qvl.engine.jobs.answers import Answers
from qvl.engine.jobs.lines import Line
from qvl.engine.protocol import EmbedResult, RerankResult

Row: TypeAlias = tuple[bytes, ...]
"""A piece for each of a task's files."""
Id: TypeAlias = str | int
R = TypeVar("R")

MOST_OF_AN_ID = 4096
"""Characters, as of a path; in an npz every id takes the room of the longest."""
_SURELY_WRITTEN = 200
"""Levels of lists and objects that orjson writes whatever is in them."""
RERANK_KEYS = frozenset({"id", "query", "documents", "instruction", "top_n"})


@dataclass(frozen=True, slots=True)
class Parsed:
    index: int
    own: Id | None
    value: Any
    """The line's JSON without its id."""
    kept: Any = None
    """The same with references to files in place of their bytes."""

    @property
    def id(self) -> Id:
        return self.index if self.own is None else self.own


class Task(Protocol[R]):
    most: ClassVar[int | None]
    """Lines of one request (None: the job's setting)."""

    async def answer(self, batch: Sequence[Parsed]) -> list[R | QvlError]:
        """One row or error a line; raises what concerns the whole batch."""
        ...


def own_id(value: Mapping[str, Any]) -> Any:
    """As a line names itself; OpenAI's batch lines have another word for it."""
    return value.get("custom_id" if "body" in value else "id")


class _Request(msgspec.Struct):
    body: msgspec.Raw


def as_written(request: bytes) -> orjson.Fragment:
    """Its body to the letter: a number may have more digits than one is read with here."""
    return orjson.Fragment(bytes(msgspec.json.decode(request, type=_Request).body))


def parse(line: Line) -> Parsed:
    value = line.json()
    try:
        return _parsed(line, value)
    except (TypeError, RecursionError):  # orjson reads more levels than it writes
        raise BadRequest("too many levels of lists and objects", code="invalid_json") from None


def _parsed(line: Line, value: Any) -> Parsed:
    own = None
    if isinstance(value, Mapping):
        own = own_id(value)
        if "body" in value:
            value = {**value, "body": as_written(line.data)}
        else:
            value = {key: each for key, each in value.items() if key != "id"}
    if line.data.count(b"[") + line.data.count(b"{") > _SURELY_WRITTEN:
        orjson.dumps([[[[value]]]])  # with what a request puts around it
    if own is not None and (isinstance(own, bool) or not isinstance(own, str | int)):
        raise BadRequest("id must be a string or an integer", param="id")
    if isinstance(own, str) and len(own) > MOST_OF_AN_ID:
        raise BadRequest(f"id has {len(own):,} characters; at most {MOST_OF_AN_ID:,}", param="id")
    return Parsed(line.index, own, value, orjson.loads(line.kept) if line.kept else value)


@dataclass(frozen=True, slots=True)
class Embedding:
    answers: Answers
    instruction: str | None = None
    dimensions: int | None = None

    files: ClassVar[tuple[str, ...]] = ("rows.jsonl", "vectors.f32")
    most: ClassVar[int | None] = None

    async def answer(self, batch: Sequence[Parsed]) -> list[Row | QvlError]:
        items = [_without_metadata(each.value) for each in batch]
        result = await self.answers.embed(items, self.instruction, self.dimensions)
        return [result.errors.get(i) or self._row(each, result, i) for i, each in enumerate(batch)]

    async def width(self) -> int:
        """Of every vector, where no line has one."""
        result = await self.answers.embed(["width"], self.instruction, self.dimensions)
        return int(result.vectors.shape[1])

    def _row(self, line: Parsed, result: EmbedResult, i: int) -> Row:
        head: dict[str, Any] = {"id": line.id, "index": line.index}
        if isinstance(line.value, Mapping) and line.value.get("metadata") is not None:
            head["metadata"] = line.value["metadata"]
        return (
            orjson.dumps(head, option=orjson.OPT_APPEND_NEWLINE),
            result.vectors[i].astype("<f4").tobytes(),
        )


@dataclass(frozen=True, slots=True)
class Ranking:
    answers: Answers
    instruction: str | None = None

    files: ClassVar[tuple[str, ...]] = ("rows.jsonl",)
    most: ClassVar[int | None] = 1

    async def answer(self, batch: Sequence[Parsed]) -> list[Row | QvlError]:
        return [await self._one(each) for each in batch]

    async def _one(self, line: Parsed) -> Row | QvlError:
        try:
            query, documents, instruction, top_n = pair_of(line.value)
        except BadRequest as error:
            return error
        result = await self.answers.rerank(query, documents, instruction or self.instruction)
        row = {"id": line.id, "index": line.index, "results": _results(result, top_n)}
        if result.errors:
            failed = sorted(result.errors.items())
            row["errors"] = [{"index": i, "error": error.entry()} for i, error in failed]
        return (orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE),)


def _without_metadata(value: Any) -> Any:
    """It is for an index; here it goes along into what has a place for it."""
    if isinstance(value, Mapping) and "metadata" in value:
        return {key: each for key, each in value.items() if key != "metadata"}
    return value


def pair_of(value: Any) -> tuple[Any, list[Any], str | None, int | None]:
    """A line's query, documents, instruction and top_n. Raises BadRequest."""
    if not isinstance(value, Mapping):
        raise BadRequest('a line must be an object with "query" and "documents"')
    if unknown := sorted(value.keys() - RERANK_KEYS):
        raise unknown_field(unknown[0])
    for name in ("query", "documents"):
        if name not in value:
            raise BadRequest(f"{name} is missing", param=name)
    documents, instruction, top_n = value["documents"], value.get("instruction"), value.get("top_n")
    if not isinstance(documents, list) or not documents:
        raise BadRequest("documents must be a list with at least one document", param="documents")
    if instruction is not None and not isinstance(instruction, str):
        raise BadRequest("instruction must be a string", param="instruction")
    if top_n is not None and (isinstance(top_n, bool) or not isinstance(top_n, int) or top_n < 1):
        raise BadRequest("top_n must be a positive integer", param="top_n")
    return value["query"], documents, instruction, top_n


def unknown_field(name: str) -> BadRequest:
    return BadRequest(f"unknown field {short(name)!r}", param=short(name), code="unknown_field")


def _results(result: RerankResult, top_n: int | None) -> list[dict[str, Any]]:
    scores = result.scores.tolist()
    return [{"index": i, "score": scores[i]} for i in result.order(top_n)]
