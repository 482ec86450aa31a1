"""Pictures, videos and texts on this machine's disks, told by the ends of their names.

A line may name those in the folder that it is in, or below; their bytes are what is asked with:

    {"image": "m/0.png"}   {"video": "films/1.mp4"}   {"content": [{"type": "image", "image": "./0.png"}]}
"""

from __future__ import annotations

import errno
import os
import re
import stat
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from qvl.engine.client.items import data_url
from qvl.engine.config import EngineConfig, Limits
from qvl.engine.errors import BadRequest, short
from qvl.engine.fragments import NAMED, parted
from qvl.engine.jobs import pdf
from qvl.engine.jobs.lines import Line
from qvl.engine.jobs.settings import JobError
from qvl.engine.magic import IMAGE_SUFFIXES, PDF, VIDEO_SUFFIXES, sniff

KINDS = {
    "image": IMAGE_SUFFIXES,
    "video": VIDEO_SUFFIXES,
    "text": (".txt", ".md"),
}
"""Of a folder's files, by the end of their names; each (of a PDF: each page) is an item whose id is its path
in the folder."""
FILE_BYTES = Limits().media_bytes
"""Of one file, where no engine of the job's own says how much it takes."""
LINE_BYTES = 4 * FILE_BYTES
"""Of the files that one line names, together."""
UNKNOWN = "application/octet-stream"

_KIND_OF = {suffix: kind for kind, suffixes in KINDS.items() for suffix in suffixes}
_ENDS = "|".join(suffix.strip(".") for suffix, kind in _KIND_OF.items() if kind != "text")
_NAMED = re.compile(rf'\.({_ENDS})(#[^"]*)?"|\\u00[2-7]'.encode(), re.IGNORECASE)
"""Only lines that hold such a string, or one with letters that are escaped, are read here: no base64 does."""
_ARRAY = re.compile(rb'\s*\[\s*[{"]')
"""Numbers would be token ids, which are an item."""
_MEDIA = frozenset({"image", "video", "image_url", "video_url", "pdf"})
_AROUND = frozenset({"content", "query", "documents"})
"""Fields of a line that items or parts are in; what metadata says is left alone."""


def most_of(engine: EngineConfig | None) -> int:
    """Bytes of one file that whoever is asked takes; of another's server, as it comes."""
    return engine.limits.media_bytes if engine else FILE_BYTES


def kind_of(path: Path) -> str | None:
    """Without a look into the file; None: no item."""
    found = NAMED.fullmatch(path.name)
    return _KIND_OF.get(Path(found[1] if found else path).suffix.lower())


def content(path: Path, most: int = FILE_BYTES) -> bytes:
    """Raises BadRequest for a larger one: nothing of it is read."""
    with _opened(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise BadRequest(
                f"{short(path.name)} has {size:,} bytes; at most {most:,}", code="media_too_large"
            )
        return file.read(most)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file: to open a FIFO could wait forever."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        yield file


def inline(path: Path, most: int = FILE_BYTES) -> str:
    file, page = pdf.parted(path)
    if page:
        with _opened(file):
            return data_url(pdf.cut_page(file, page), PDF)
    data = content(file, most)
    return data_url(data, sniff(data) or UNKNOWN) + parted(path)[1]


def url_of(path: Path) -> str:
    file, page = pdf.parted(path)
    return file.resolve().as_uri() + (f"#page={page}" if page else parted(path)[1])


def left_out(files: Iterable[Path]) -> str:
    """How many, by the ends of their names: `3 files (.pdf 2, .bin 1)`."""
    ends = Counter(path.suffix.lower() or "without one" for path in files)
    shown = ", ".join(f"{end} {count:,}" for end, count in ends.most_common(8))
    return f"{ends.total():,} file{'s' * (ends.total() != 1)} ({shown}{', …' if len(ends) > 8 else ''})"


def refuse_others(source: Path) -> None:
    """Raises JobError for what is no JSON lines at all: each of its lines would be a bad one."""
    if source.is_dir():
        raise JobError(
            f"{source} is a folder: `qvl embed {source} --ray` and `qvl search add {source}` read those"
        )
    refuse_pipes(source)
    with source.open("rb") as file:
        head = file.read(4096).removeprefix(BOM_UTF8)
    if head.startswith(b"PAR1"):
        raise JobError(f"{source} is parquet: `qvl embed --ray` reads it, where its name ends in .parquet")
    if kind := sniff(head):
        raise JobError(f"{source} is {kind}: give its folder, to `qvl search add` or `qvl embed --ray`")
    if _ARRAY.match(head):
        raise JobError(f"{source} is one JSON array: put one object a line (`jq -c '.[]' {source}`)")


def refuse_pipes(source: Path) -> None:
    """Raises JobError: one that is opened waits for its writer, and gives what it has once."""
    if not stat.S_ISREG(source.stat().st_mode):
        raise JobError(f"{source} is no regular file: a job reads its input twice; give a file")


def refuse_output(out: Path, source: Path) -> None:
    """Raises JobError for an output that is the input, or no file: what is there would be replaced."""
    if out.exists():
        if source.exists() and out.samefile(source):
            raise JobError(f"{out} is the input: give another name to -o")
        if not out.is_file():
            raise JobError(f"{out} is {'a folder' if out.is_dir() else 'no regular file'}: give a file to -o")


def with_files(line: Line, folder: Path, most: int = FILE_BYTES) -> Line:
    """The line with the bytes of the files that it names, each of `most`. One that cannot be read makes it a
    bad line."""
    if line.wrong or not _NAMED.search(line.data):
        return line
    found: dict[Path, str] = {}

    def read(name: str) -> str:
        if not _is_path(name):
            return name
        path = folder / name
        if path not in found:
            found[path] = _read(folder, name, most)
            if sum(map(len, found.values())) > max(most, LINE_BYTES) * 4 // 3 + 99:
                raise BadRequest(f"the files of one line have over {LINE_BYTES:,} bytes", code="too_large")
        return found[path]

    try:
        value = orjson.loads(line.data)
        data = orjson.dumps(with_media(value, read))
    except (orjson.JSONDecodeError, RecursionError, TypeError):  # which whoever reads the line will tell
        return line
    except BadRequest as error:
        return replace(line, wrong=error)
    if not found:
        return line
    kept = with_media(value, lambda name: url_of(folder / name) if _is_path(name) else name)
    return replace(line, data=data, kept=orjson.dumps(kept))


def _read(folder: Path, name: str, most: int) -> str:
    """Of the folder alone: who wrote the lines may not be whoever sends what they name."""
    path = folder / name
    try:
        file, _ = pdf.parted(path)
        if file.resolve().is_relative_to(folder.resolve()):
            return inline(path, most)
        raise BadRequest(
            f"{short(name)} lies outside the input's folder; move it there, or write a file:// URL",
            code="file_forbidden",
        )
    except (OSError, ValueError, RuntimeError) as error:  # Python 3.11: of links that go in circles
        said = getattr(error, "strerror", None) or error
        raise BadRequest(
            f"{short(name)}: {said}; it was looked for at {short(str(path.absolute()), 400)}",
            code="file_not_found",
        ) from None


def with_media(value: Any, change: Callable[[str], str], medium: bool = False) -> Any:
    """With other strings for its media."""
    if isinstance(value, str):
        return change(value) if medium else value
    if isinstance(value, list):
        return [with_media(each, change, medium) for each in value]
    if isinstance(value, dict):
        return {
            key: with_media(each, change, key in _MEDIA or (medium and key == "url"))
            if key in _MEDIA or key in _AROUND or medium
            else each
            for key, each in value.items()
        }
    return value


def _is_path(text: str) -> bool:
    if "://" in text or text.startswith("data:"):
        return False
    return kind_of(Path(text)) in ("image", "video")
