"""The work folder of a job: whose it is, what is on disk when, and which settings it keeps apart."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from qvl.engine.config import EngineConfig, MediaConfig
from qvl.engine.jobs.answers import settings_of
from qvl.engine.jobs.settings import JobConfig
from qvl.engine.jobs.work import Busy, Work, difference
from tests.engine.conftest import lines_of


def test_a_run_that_has_finished_takes_nothing_of_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with Work(out, ("rows.jsonl",)) as first:
        first.begin({})
        first.append((b"{}",))
        first.advance(1, 3, 1)
        first.commit()
        (made := first.folder / "made").write_bytes(b"rows")
        first.finish(made, {}, {"rows": 1})
        with pytest.raises(Busy, match="another run is writing"):
            Work(out, ("rows.jsonl",)).__enter__()
    assert not first.folder.exists()
    first.folder.mkdir()  # as by one that was killed before it could tidy up
    (first.folder / "rows.jsonl").touch()
    with Work(out, ("rows.jsonl",)) as second:
        assert second.finished({}, overwrite=False) == {"rows": 1}
        assert second.folder.exists()
    assert not second.folder.exists()


def test_a_folder_that_goes_between_the_two_steps_of_whoever_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, real, gone = Work(tmp_path / "out.jsonl", ("rows.jsonl",)), os.open, []

    def late(path: Path, *options: int, **more: Any) -> int:
        if Path(path).name == "lock" and not gone:
            gone.append(work.folder.rmdir())
        return real(path, *options, **more)

    monkeypatch.setattr(os, "open", late)
    with work:
        work.begin({})
    assert gone


def test_what_gets_its_name_is_whole_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[str] = set()
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.add(Path(f"/proc/self/fd/{handle}").readlink().name)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with Work(tmp_path / "out.jsonl", ("rows.jsonl",)) as work:
        work.begin({})
        work.append_error({"line": 1})
        work.commit()
        (made := work.folder / "made").write_bytes(b"rows")
        work.finish(made, {}, {})
    assert {"errors.new", "made", "out.jsonl.job.json.new"} <= synced
    assert lines_of(tmp_path / "out.jsonl.errors.jsonl") == [{"line": 1}]


def test_vectors_of_other_pixels_are_not_mixed() -> None:
    fewer = MediaConfig(max_pixels=1 << 20)
    begun, now = (
        asyncio.run(settings_of(JobConfig(), EngineConfig(embedder="x", media=media), "embedder"))
        for media in (MediaConfig(), fewer)
    )
    assert "max_pixels" not in begun  # so that what an older qvl began goes on
    assert difference(begun, now) == "max_pixels null, now 1048576"
