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
    seen: dict[str, str] = field(default_factory=dict)
    """The digest of every id so far: another line with it is a repetition, or a mistake."""

    most: ClassVar[int | None] = None

    async def answer(self, batch: Sequence[Parsed]) -> list[Made | QvlError]:
        read = [self._read(line) for line in batch]
        entries = [each[0] for each in read if not isinstance(each, QvlError)]
        known = await asyncio.to_thread(self.index.known, [entry.id for entry in entries])
        # A line may repeat another; one of an earlier batch that is not put yet is embedded again.
        fresh = {
            each[0].id: each
            for each in read
            if not isinstance(each, QvlError) and known.get(each[0].id) != each[0].digest
        }
        outcomes = await self._embedded(list(fresh.values()))
        return [
            each
            if isinstance(each, QvlError)
            else outcomes.get(each[0].id) or Made(entry=each[0], vector=None)
            for each in read
        ]

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
            if self.seen.setdefault(id, digest) != digest:
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
    _put: set[str] = field(default_factory=set)
    """The ids of this run: a line may repeat another."""

    def append(self, row: Made) -> None:
        if b'"file://' in row.entry.item:
            with_media(orjson.loads(row.entry.item), self._referred)
        self.unchanged += row.vector is None or row.entry.id in self._put
        if row.vector is not None:
            self._put.add(row.entry.id)
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
