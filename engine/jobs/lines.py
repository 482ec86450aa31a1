"""The input file: JSON lines, read from where the last run stopped, never held as a whole."""

from __future__ import annotations

import hashlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from qvl.engine.errors import BadRequest

BATCH_BYTES = 8 << 20
"""Lines with inline pictures are large; a batch of them ends here whatever its count."""


@dataclass(frozen=True, slots=True)
class Line:
    index: int
    """Place in the file, from 0, blank lines counted."""
    data: bytes
    end: int
    """Offset of the next line's first byte."""
    wrong: BadRequest | None = None
    """Why the data cannot be read, or the files that it names."""
    kept: bytes | None = None
    """The same line with references to files in place of their bytes; None: there are none in it."""

    def json(self) -> Any:
        if self.wrong:
            raise self.wrong
        try:
            return orjson.loads(self.data)
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"not JSON: {error}", code="invalid_json") from None


@dataclass(frozen=True, slots=True)
class Fingerprint:
    sha256: str
    lines: int
    """Lines that are not blank."""


def is_blank(data: bytes, begin: int) -> bool:
    """`begin`: 0 of the first line, where a byte order mark may be."""
    return data.isspace() or (not begin and not data.removeprefix(BOM_UTF8).strip())


def fingerprint(path: Path) -> Fingerprint:
    """What the file holds, and how much of it, in one pass."""
    digest = hashlib.sha256()
    lines = 0
    with path.open("rb") as file:
        for number, data in enumerate(file):
            digest.update(data)
            lines += not is_blank(data, number)
    return Fingerprint(digest.hexdigest(), lines)


def read(path: Path, index: int = 0, offset: int = 0) -> Iterator[Line]:
    """The lines that are not blank, from line `index` on, which begins at `offset`."""
    with path.open("rb") as file:
        file.seek(offset)
        for number, data in enumerate(file, index):
            begin, offset = offset, offset + len(data)
            if not is_blank(data, begin):
                yield Line(number, data if begin else data.removeprefix(BOM_UTF8), offset)


def batches(lines: Iterable[Line], most: int) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == most or size + len(line.data) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.data)
    if batch:
        yield batch


def size_of(batch: Sequence[Line]) -> int:
    return sum(len(line.data) for line in batch)
