"""What a job leaves on disk while it runs, so that a killed one goes on with every row exactly once.

    OUT.job.json       what the job is: input hash, settings, and once finished its summary
    OUT.work/          files that only grow, and the journal that says how far each of them counts

A commit syncs the files, then appends one line to the journal and syncs that. Whatever a crash left behind
the last whole journal line is cut off on the next start, and the input is read on from the same line.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from io import BufferedWriter
from pathlib import Path
from typing import Any

import orjson

from qvl.engine.jobs.settings import JobConfig, JobError

ERRORS = "errors.jsonl"
JOURNAL = "journal.jsonl"
LOCK = "lock"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the job has come."""

    index: int = 0
    """The next line to read, and where it begins."""
    offset: int = 0
    lines: int = 0
    rows: int = 0
    errors: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of each file that count."""


class Busy(JobError):
    """Somebody else has the lock."""


class Work:
    """The work folder of one output, locked for this process. Use as a context manager, which raises Busy."""

    def __init__(self, out: Path, files: Sequence[str], prefix: str = "") -> None:
        """`prefix` begins the names of what lies beside `out`."""
        self.out = out
        name = f"{prefix}{out.name}"
        self.folder = out.with_name(f"{name}.work")
        self.record = out.with_name(f"{name}.job.json")
        self.errors = out.with_name(f"{name}.errors.jsonl")
        self.mark = Mark()
        self._rows = tuple(files)
        self._names = (*files, ERRORS)
        self._files: dict[str, BufferedWriter] = {}
        self._unlock = ExitStack()
        self._done = False

    def __enter__(self) -> Work:
        lock = self.folder / LOCK
        while True:
            with suppress(FileExistsError):
                self.folder.mkdir()
            # A run that ends deletes its folder, which may be this one.
            with suppress(FileNotFoundError), ExitStack() as stack:
                held = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
                stack.callback(os.close, held)
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise Busy(f"another run is writing {self.out}") from None
                if lock.stat().st_ino == os.fstat(held).st_ino:
                    self._unlock = stack.pop_all()
                    return self

    def __exit__(self, *exception: object) -> None:
        for file in self._files.values():
            # What a full disk does not take counts for nothing: no commit covers it.
            with suppress(OSError):
                file.close()
        with self._unlock, suppress(OSError):
            if self._done or not self._last_mark().lines:
                self._delete()

    def finished(self, settings: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
        """The summary of an equal job that is done already, else None; refuses to mix two jobs."""
        if overwrite:
            self._forget()
            return None
        if not self.record.exists():
            if self.out.exists():
                raise JobError(f"{self.out} exists and no job of this kind made it; --overwrite replaces it")
            self._forget()
            return None
        begun = orjson.loads(self.record.read_bytes())
        if what := difference(begun["settings"], settings):
            if self._last_mark().lines or self.out.exists():
                raise JobError(f"{self.out} was begun with {what}; --overwrite starts again")
            self._forget()
            return None
        if "summary" in begun and self.out.exists():
            summary: dict[str, Any] = begun["summary"]
            self._done = True
            return summary
        return None

    def begin(self, settings: dict[str, Any]) -> None:
        """Open the files at the last commit, cutting off what was never committed."""
        write_whole(self.record, orjson.dumps({"settings": settings}, option=orjson.OPT_INDENT_2))
        self.mark = self._last_mark()
        for name in self._names:
            self._files[name] = self._open(name, self.mark.sizes.get(name, 0))
        self._files[JOURNAL] = self._open(JOURNAL, sum(map(len, self._journal())))

    def append(self, row: Sequence[bytes]) -> None:
        """One answered line: a piece for each file."""
        for name, piece in zip(self._rows, row, strict=True):
            self._files[name].write(piece)
        self.mark = replace(self.mark, rows=self.mark.rows + 1)

    def append_error(self, record: dict[str, Any]) -> None:
        self._files[ERRORS].write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
        self.mark = replace(self.mark, errors=self.mark.errors + 1)

    def advance(self, index: int, offset: int, lines: int) -> None:
        """Lines up to `index` are answered; nothing of that counts before `commit`."""
        self.mark = replace(self.mark, index=index, offset=offset, lines=self.mark.lines + lines)

    def commit(self) -> None:
        for name in self._names:
            sync(self._files[name])
        sizes = {name: self._files[name].tell() for name in self._names}
        self.mark = replace(self.mark, sizes=sizes)
        journal = self._files[JOURNAL]
        journal.write(orjson.dumps(asdict(self.mark), option=orjson.OPT_APPEND_NEWLINE))
        sync(journal)

    def finish(self, made: Path, settings: dict[str, Any], summary: dict[str, Any]) -> None:
        """Put the output in its place in one step; a crash in between only repeats this."""
        if self.mark.errors:
            told = self.folder / "errors.new"
            shutil.copyfile(self.folder / ERRORS, told)
            _place(told, self.errors)
        else:
            self.errors.unlink(missing_ok=True)
        _place(made, self.out)
        sync_folder(self.out.parent)
        done = {"settings": settings, "summary": summary}
        write_whole(self.record, orjson.dumps(done, option=orjson.OPT_INDENT_2))
        self._done = True

    @contextmanager
    def on_a_full_disk(self, job: JobConfig) -> Iterator[None]:
        """Turns its error into a JobError that says how to go on."""
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise JobError(
                f"cannot write {self.out}: {error.strerror}; make room: {job.again} goes on from here"
            ) from None

    def _open(self, name: str, size: int) -> BufferedWriter:
        file = (self.folder / name).open("ab")
        if file.tell() < size:
            file.close()
            raise JobError(f"{self.folder / name} has lost committed rows; --overwrite starts again")
        file.truncate(size)
        file.seek(0, os.SEEK_END)
        return file

    def _forget(self) -> None:
        # The journal first: without it the other files count for nothing.
        for path in (self.folder / JOURNAL, *(self.folder / name for name in self._names), self.record):
            path.unlink(missing_ok=True)

    def _delete(self) -> None:
        """The lock last: as soon as it is gone the next run may have the folder, and files in it."""
        for path in sorted(self.folder.iterdir(), key=lambda path: (path.name == LOCK, path.name != JOURNAL)):
            path.unlink()
        self.folder.rmdir()

    def _journal(self) -> list[bytes]:
        """Its whole lines; only the last can be torn."""
        path = self.folder / JOURNAL
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [line for line in lines if line.endswith(b"}\n")]

    def _last_mark(self) -> Mark:
        journal = self._journal()
        return Mark(**orjson.loads(journal[-1])) if journal else Mark()


def difference(begun: dict[str, Any], now: dict[str, Any]) -> str:
    """What another job was begun with, empty if it is the same one; what one of them lacks is null there."""
    for key in {**begun, **now}:
        if (old := begun.get(key)) != (new := now.get(key)):
            told = f"{key} {orjson.dumps(old).decode()}, now {orjson.dumps(new).decode()}"
            return "an input of other content" if key == "input" else told
    return ""


def _place(made: Path, name: Path) -> None:
    """Whole on disk first."""
    with made.open("ab") as file:
        sync(file)
    made.replace(name)


def sync(file: BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, data: bytes) -> None:
    """The file has either its old content or all of the new."""
    draft = path.with_name(f"{path.name}.new")
    with draft.open("wb") as file:
        file.write(data)
        sync(file)
    draft.replace(path)
    sync_folder(path.parent)
