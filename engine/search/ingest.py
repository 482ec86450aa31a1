"""Items into an index, by the file jobs' pipeline: what is there with the same content is not embedded again.

That is also how a run goes on after a crash: whatever was committed is recognised by its digest. There is no
journal that could disagree with the index.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import orjson

from qvl.engine.dialects import search as dialect
from qvl.engine.dialects.fields import near
from qvl.engine.dialects.items import Item
from qvl.engine.errors import BadRequest, QvlError, short
from qvl.engine.jobs.answers import Answers
from qvl.engine.jobs.corpus import files_of
from qvl.engine.jobs.files import FILE_BYTES, content, inline, kind_of, left_out, url_of, with_media
from qvl.engine.jobs.lines import Line
from qvl.engine.jobs.pdf import check, names_of, parted
from qvl.engine.jobs.progress import say
from qvl.engine.jobs.settings import JobError
from qvl.engine.jobs.tasks import Parsed
from qvl.engine.jobs.work import Mark
from qvl.engine.search.index import Dtype, Entry, Index, Layout

_FILE = re.compile(r"file://(?:localhost)?(/[^?#]*)", re.IGNORECASE)
KNOWN = frozenset(Item.__struct_fields__)
MOST_ERRORS = 100_000
"""Bad lines that are told; of all others only the number is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One line's entry; without a vector the index has it already."""

    entry: Entry
    vector: npt.NDArray[np.float32] | None
    model: str = ""


@dataclass(frozen=True, slots=True)
class Indexing:
    """Lines are items with `id` and `metadata` beside their own fields, or strings."""

    answers: Answers
    index: Index
    dimensions: int | None = None
    instruction: str | None = None
    seen: dict[str, tuple[str, int]] = field(default_factory=dict)
    """The digest and line of every id so far: another line with it is a repetition, or a mistake."""
    unsettled: dict[str, asyncio.Future[QvlError | None]] = field(default_factory=dict)
    """What is wrong with the first line of an id, of those alone that are under way or bad."""

    most: ClassVar[int | None] = None

    async def answer(self, batch: Sequence[Parsed]) -> list[Made | QvlError]:
        read = [self._read(line) for line in batch]
        entries = [each[0] for each in read if not isinstance(each, QvlError)]
        known = await asyncio.to_thread(self.index.known, [entry.id for entry in entries])
        firsts = [
            each
            for each, line in zip(read, batch, strict=True)
            if not isinstance(each, QvlError) and self.seen[each[0].id][1] == line.index
        ]
        try:
            outcomes = await self._embedded(
                [each for each in firsts if known.get(each[0].id) != each[0].digest]
            )
        except QvlError as error:
            if len(batch) == 1:  # else each is asked alone
                self._settle(firsts, {entry.id: error for entry, _ in firsts})
            raise
        self._settle(firsts, outcomes)
        return [
            each if isinstance(each, QvlError) else await self._outcome(each[0], outcomes) for each in read
        ]

    def _settle(self, firsts: list[tuple[Entry, Any]], outcomes: Mapping[str, Made | QvlError]) -> None:
        """Once more for a line that was not begun beside others and was asked again alone."""
        for entry, _ in firsts:
            told = self.unsettled.pop(entry.id)
            if told.done():
                told = asyncio.get_running_loop().create_future()
            outcome = outcomes.get(entry.id)
            wrong = outcome if isinstance(outcome, QvlError) else None
            if wrong:
                self.unsettled[entry.id] = told
            told.set_result(wrong)

    async def _outcome(self, entry: Entry, outcomes: dict[str, Made | QvlError]) -> Made | QvlError:
        """A line that was not embedded is in the index, or as bad as the one that it repeats."""
        if entry.id in outcomes:
            return outcomes.pop(entry.id)
        first = self.unsettled.get(entry.id)
        return (first and await first) or Made(entry=entry, vector=None)

    async def _embedded(self, fresh: list[tuple[Entry, Any]]) -> dict[str, Made | QvlError]:
        if not fresh:
            return {}
        result = await self.answers.embed([item for _, item in fresh], self.instruction, self.dimensions)
        return {
            entry.id: result.errors.get(i) or Made(entry=entry, vector=result.vectors[i], model=result.model)
            for i, (entry, _) in enumerate(fresh)
        }

    def _read(self, line: Parsed) -> tuple[Entry, Any] | QvlError:
        """What is stored, and what is embedded."""
        try:
            item, fields = _parted(line.value)
            kept, _ = _parted(line.kept)  # the index refers to files and does not hold their bytes
            said = orjson.dumps([item, fields, self.instruction], option=orjson.OPT_SORT_KEYS)
            digest = hashlib.sha256(said).hexdigest()
            id = digest[:32] if line.own is None else str(line.own)
            if id not in self.seen:
                self.seen[id] = digest, line.index
                self.unsettled[id] = asyncio.get_running_loop().create_future()
            if self.seen[id][0] != digest:
                raise BadRequest(f"the id {id[:80]!r} came before with other content", param="id")
            return Entry(id=id, digest=digest, item=orjson.dumps(kept), metadata=fields), item
        except QvlError as error:
            return error


@dataclass(slots=True)
class Intake:
    """The pipeline's sink: a commit is one transaction of the index."""

    index: Index
    canary: str
    dtype: Dtype = "int8"
    prefix: int | None = None
    mark: Mark = field(default_factory=Mark)
    unchanged: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    folders: set[Path] = field(default_factory=set)
    """Those of the files that entries refer to."""
    _waiting: list[Made] = field(default_factory=list)

    def append(self, row: Made) -> None:
        if b'"file://' in row.entry.item:
            with_media(orjson.loads(row.entry.item), self._referred)
        if row.vector is None:
            self.unchanged += 1
        else:
            self._waiting.append(row)
        self.mark = replace(self.mark, rows=self.mark.rows + 1)

    def append_error(self, record: dict[str, Any]) -> None:
        if len(self.errors) < MOST_ERRORS:
            self.errors.append(record)
        self.mark = replace(self.mark, errors=self.mark.errors + 1)

    def advance(self, index: int, offset: int, lines: int) -> None:
        self.mark = replace(self.mark, index=index, offset=offset, lines=self.mark.lines + lines)

    def commit(self) -> None:
        if not self._waiting:
            return
        vectors = np.stack([made.vector for made in self._waiting if made.vector is not None])
        width = vectors.shape[1]
        layout = Layout(
            model=self._waiting[0].model,
            dimensions=width,
            prefix=min(self.prefix or width, width),
            dtype=self.dtype,
            canary=self.canary,
        )
        self.index.prepare(layout)
        self.index.put([made.entry for made in self._waiting], vectors)
        self._waiting = []

    def _referred(self, medium: str) -> str:
        if found := _FILE.match(medium):
            self.folders.add(Path(os.path.normpath(unquote(found[1]))).parent)
        return medium


def highest(folders: Iterable[Path]) -> list[Path]:
    """Those below no other; never the root, which would serve everything."""
    found: list[Path] = []
    for folder in sorted(folders):
        if folder != folder.parent and not (found and folder.is_relative_to(found[-1])):
            found.append(folder)
    return found


def files(folder: Path, most: int = FILE_BYTES) -> tuple[Iterator[Line], int]:
    """Every picture, video and text below a folder as a line, and how many there are; others are left out."""
    found = files_of(folder)
    items = [path for path in found if kind_of(path)]
    if not items:
        told = f"{left_out(found)} that are neither" if found else "nothing"
        raise JobError(
            f"{folder} holds {told}: put images, videos or texts there, known by their names' ends"
        )
    if others := [path for path in found if not kind_of(path)]:
        say(f"left out, being neither text, image nor video: {left_out(others)}")
    named = [name for path in items for name in names_of(path, path.relative_to(folder).as_posix())]
    return (_line(number, folder, name, most) for number, name in enumerate(named)), len(named)


def _line(number: int, folder: Path, name: str, most: int) -> Line:
    path = folder / name
    (file, page), kind = parted(path), kind_of(path)
    fields: dict[str, Any] = {
        "path": file.relative_to(folder).as_posix(),
        "folder": file.parent.relative_to(folder).as_posix(),
    }
    if page:
        fields["page"] = page
    try:
        if not page:
            check(file)
        said = content(path, most).decode("utf-8", "replace") if kind == "text" else inline(path, most)
    except BadRequest as error:
        return Line(number, orjson.dumps({"id": name}), 0, error)
    item = {"id": name, kind: said, "metadata": fields}
    kept = item if kind == "text" else {**item, kind: url_of(path)}
    return Line(number, orjson.dumps(item), 0, kept=orjson.dumps(kept))


def _parted(value: Any) -> tuple[Any, dict[str, Any]]:
    """The item and its metadata."""
    if isinstance(value, str):
        return value, {}
    if not isinstance(value, Mapping):  # token ids could be embedded, but not shown to a reranker
        raise BadRequest("an item is a text, or an object with text, image or video")
    item = {key: each for key, each in value.items() if key not in ("id", "metadata")}
    if strange := next((key for key in item if key not in KNOWN and not near(key, Item)), None):
        raise BadRequest(
            f"unknown field `{short(strange)}`; put what an item has of its own under `metadata`: "
            f'{{"metadata": {{"{short(strange)}": …}}}}',
            param=strange[:80],
            code="unknown_field",
        )
    return item, dialect.metadata(value.get("metadata"))
