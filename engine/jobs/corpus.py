"""A corpus larger than memory, cut into blocks that can be read alone: folders, JSON lines and parquet.

A block is what a lost worker costs. Which items it holds depends on the input and the block's size alone, so
that a second run finds the same blocks.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import orjson

from qvl.engine.config import EngineConfig
from qvl.engine.errors import BadRequest
from qvl.engine.jobs.columns import groups_of, rows
from qvl.engine.jobs.files import content, kind_of, most_of, refuse_others, refuse_pipes, with_files
from qvl.engine.jobs.lines import Line, is_blank, read
from qvl.engine.jobs.pdf import check, cut_page, names_of, parted
from qvl.engine.jobs.progress import say
from qvl.engine.jobs.settings import JobError

_SHOWN = 3
"""Names of files that are left out."""


@dataclass(frozen=True, slots=True)
class Block:
    """Items `first` to `first + count` of the corpus, and where they are."""

    number: int
    first: int
    count: int
    path: Path
    """A file of lines or rows, or the folder that `names` are in."""
    offset: int = 0
    """Of a file of lines: where the first begins."""
    groups: tuple[int, ...] = ()
    """Of a parquet file: its row groups."""
    names: tuple[str, ...] = ()

    def lines(self, index: int = 0, engine: EngineConfig | None = None) -> Iterator[Line]:
        """From item `index` of the corpus on; a file is only opened when its item is due, and only one that
        `engine` takes."""
        most = most_of(engine)
        found = zip(count(self.first), self._items(index, most), strict=False)
        lines = (_line(place, item) for place, item in found if place >= index)
        return lines if self.names else (with_files(line, self.path.parent, most) for line in lines)

    def _items(self, index: int, most: int) -> Iterator[bytes | BadRequest]:
        if self.names:
            for place, name in enumerate(self.names, self.first):
                yield _file(self.path, name, most) if place >= index else b""
        elif self.groups:
            yield from rows(self.path, self.groups)
        else:
            yield from (line.data for line in islice(read(self.path, 0, self.offset), self.count))


@dataclass(frozen=True, slots=True)
class Corpus:
    blocks: tuple[Block, ...]
    sha256: str
    """Of the content of files of lines; of the names, sizes and times of others, which may be too large."""
    items: int
    skipped: int
    """Files of a folder that are neither text nor media."""


def survey(source: Path, size: int) -> Corpus:
    """Blocks of about `size` items. Raises JobError when there is nothing to read."""
    if not source.exists():
        raise JobError(f"{source}: no such file or folder")
    digest, blocks, skipped = hashlib.sha256(), [], 0
    plans: Iterable[Block]
    if source.is_dir():
        files = files_of(source)
        tables = [each for each in files if each.suffix in (".jsonl", ".parquet")]
        media = [each for each in files if kind_of(each)]
        skipped = len(files) - len(tables) - len(media)
    else:
        refuse_pipes(source)
        tables, media = [source], []
    for path in tables:
        if path.suffix != ".parquet":
            refuse_others(path)
        plans = _of_rows(path, size, digest) if path.suffix == ".parquet" else _of_lines(path, size, digest)
        blocks += list(plans)
    blocks += list(_of_files(source, media, size, digest))
    if not blocks:
        raise JobError(f"{source} has no items: put .jsonl, .parquet, images, videos or texts there")
    placed, first = [], 0
    for number, block in enumerate(blocks):
        placed.append(replace(block, number=number, first=first))
        first += block.count
    return Corpus(tuple(placed), digest.hexdigest(), first, skipped)


def files_of(folder: Path) -> list[Path]:
    """Every file below a folder, in order, without what links lead out of it to: it may not be for whoever
    is shown the items. Raises JobError for a name that an id cannot be made of."""
    found: list[Path] = []
    outside: list[Path] = []
    root = folder.resolve()
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        leads_out = path.is_symlink() and not path.resolve().is_relative_to(root)
        (outside if leads_out else found).append(path)
    if outside:
        shown = ", ".join(str(path.relative_to(folder)) for path in outside[:_SHOWN])
        more = f" and {len(outside) - _SHOWN:,} more" if outside[_SHOWN:] else ""
        say(f"left out, being links to files outside of {folder}: {shown!a}{more}")
    for path in found:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise JobError(f"{str(path)!a}: the name is not UTF-8; rename the file") from None
    return found


def _of_lines(path: Path, size: int, digest: Any) -> Iterator[Block]:
    """Blank lines are no items."""
    found = begin = end = 0
    with path.open("rb") as file:
        for data in file:
            digest.update(data)
            found += not is_blank(data, end)
            end += len(data)
            if found == size:
                yield Block(0, 0, found, path, begin)
                found, begin = 0, end
    if found:
        yield Block(0, 0, found, path, begin)


def _of_rows(path: Path, size: int, digest: Any) -> Iterator[Block]:
    """Whole row groups: a part of one cannot be read alone."""
    sizes = groups_of(path)
    _mark(digest, path)
    groups: list[int] = []
    found = 0
    for group, more in enumerate(sizes):
        groups.append(group)
        found += more
        if found >= size or (found and group == len(sizes) - 1):
            yield Block(0, 0, found, path, groups=tuple(groups))
            groups, found = [], 0


def _of_files(folder: Path, files: list[Path], size: int, digest: Any) -> Iterator[Block]:
    for path in files:
        _mark(digest, path)
    names = [name for path in files for name in names_of(path, path.relative_to(folder).as_posix())]
    # A PDF that could not be counted in time is one item: with it the blocks are others.
    digest.update("\0".join(names).encode())
    for start in range(0, len(names), size):
        some = tuple(names[start : start + size])
        yield Block(0, 0, len(some), folder, names=some)


def _mark(digest: Any, path: Path) -> None:
    found = path.stat()
    digest.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())


def _file(folder: Path, name: str, most: int) -> bytes | BadRequest:
    path = folder / name
    kind = kind_of(path)
    try:
        file, page = parted(path)
        if not page:
            check(file)
        data = cut_page(file, page) if page else content(file, most)
    except BadRequest as error:
        return error
    value = data.decode("utf-8", "replace") if kind == "text" else _base64(data)
    return orjson.dumps({"id": name, kind: value})


def _line(place: int, item: bytes | BadRequest) -> Line:
    return Line(place, item, 0) if isinstance(item, bytes) else Line(place, b"", 0, item)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
