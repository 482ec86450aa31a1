"""`qvl embed --ray` from the survey to the manifest, with workers that are objects of this process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, chdir, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from qvl.engine.config import EngineConfig
from qvl.engine.errors import Unprocessable
from qvl.engine.jobs.settings import JobConfig, JobError
from qvl.engine.protocol import EmbedResult, Usage
from qvl.ray_serve import bulk, workers
from qvl.ray_serve.config import BulkConfig

WIDTH = 8


class Answers:
    async def embed(self, items: list[Any], instruction: str | None, dimensions: int | None) -> EmbedResult:
        errors = {i: Unprocessable("bad") for i, item in enumerate(items) if item == "BAD"}
        rows = np.ones((len(items), WIDTH), np.float32)
        return EmbedResult(model="m", vectors=rows, usage=Usage(), errors=errors)


class Answer:
    def __init__(self, value: Any) -> None:
        self.value = value


def actor(worker: workers.Worker) -> Any:
    def remote(method: Callable[..., Any]) -> Any:
        return SimpleNamespace(remote=lambda *given: Answer(asyncio.run(method(*given))))

    return SimpleNamespace(start=remote(worker.start), block=remote(worker.block))


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def answering(*_: Any) -> AsyncIterator[Answers]:
        yield Answers()

    ray = SimpleNamespace(
        cluster_resources=dict,
        remote=lambda **_: lambda cls: SimpleNamespace(remote=lambda *given: actor(cls(*given))),
        wait=lambda answers, timeout: (answers[:1], answers[1:]),
        get=lambda answer: answer.value,
        exceptions=SimpleNamespace(RayActorError=KeyError, RayTaskError=KeyError),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(bulk, "cluster", lambda address: nullcontext())
    monkeypatch.setattr(workers, "answering", answering)
    monkeypatch.setattr(workers, "beside", lambda most: 1)


def embed(source: Path, out: Path, *, model: str = "x", overwrite: bool = False) -> int:
    job, engine = JobConfig(overwrite=overwrite), EngineConfig(embedder=model)
    return bulk.embed_corpus(source, out, job, engine, None, None, BulkConfig(block=2, worker_gpus=0))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three blocks, of which the first has no good row."""
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(text) + "\n" for text in ("BAD", "BAD", "a", "b", "c")))
    return path


def test_the_output_reads_as_one_dataset(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert embed(source, out) == 0
    assert {path.name[0] for path in out.iterdir() if path.suffix != ".parquet"} == {"_"}
    (out / "_part-00000.parquet.work").mkdir()
    (out / "_part-00000.parquet.work" / "made").write_text("not parquet")
    table = pq.read_table(out)
    assert table["index"].to_pylist() == [2, 3, 4]
    assert all(
        pq.read_schema(path).field("embedding").type.list_size == WIDTH for path in out.glob("*.parquet")
    )
    manifest = json.loads((out / "_manifest.json").read_text())
    assert [(each["rows"], each["errors"]) for each in manifest["parts"]] == [(0, 2), (2, 0), (1, 0)]


def test_a_corpus_of_bad_items_alone_fails(source: Path, tmp_path: Path) -> None:
    source.write_text('"BAD"\n' * 3)
    assert [embed(source, tmp_path / "out") for _ in range(2)] == [1, 1]
    for told in (tmp_path / "out").glob("_part-*.errors.jsonl"):
        told.write_text("")
    assert embed(source, tmp_path / "out") == 1


def test_an_overwrite_that_was_killed_mixes_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    embed(source, out)

    files, gone, unlink = len(list(out.iterdir())), list[Path](), Path.unlink

    def one(path: Path, missing_ok: bool = False) -> None:
        if path.exists():
            if gone:
                raise KeyboardInterrupt
            gone.append(path)
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", one)
        for _ in range(files - 1):
            gone.clear()
            assert embed(source, out, model="y", overwrite=True) == 130
            assert "stopped; the same command without --overwrite goes on" in capsys.readouterr().err
            with pytest.raises(JobError, match=r'begun with model \["x"\], now \["y"\]; --over'):
                embed(source, out, model="y")
    assert embed(source, out, model="y", overwrite=True) == 0
    assert settings_of(out)["model"] == ["y"]


def test_workers_in_another_folder_find_what_was_given_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("corpus", "model", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("a text")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bulk, "cluster", lambda address: chdir(tmp_path / "elsewhere"))
    assert embed(Path("corpus"), Path("out"), model="./model") == 0
    assert settings_of(tmp_path / "out")["model"] == [str(tmp_path / "model")]
    assert embed(tmp_path / "corpus", tmp_path / "out", model=str(tmp_path / "model")) == 0
    assert embed(Path("corpus"), Path("hub"), model="org/name") == 0
    assert settings_of(tmp_path / "hub")["model"] == ["org/name"]


def test_an_adapters_folder_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wines").mkdir()
    monkeypatch.chdir(tmp_path)
    engine = EngineConfig(embedder="x", lora=("w=./wines", "hub=org/name", "bad"))
    assert bulk._from_anywhere(engine).lora == (f"w={tmp_path / 'wines'}", "hub=org/name", "bad")


def test_parts_of_another_model_are_not_taken_for_done(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    embed(source, out)
    (out / "_job.json").unlink()  # whoever did it
    with pytest.raises(JobError, match="what another job"):
        embed(source, out, model="y")
    (out / "_job.json").write_text(json.dumps(settings_of(out) | {"model": ["y"]}))
    with pytest.raises(JobError, match=r'begun with model \["x"\], now \["y"\]'):
        embed(source, out, model="y")


def test_a_setting_that_one_of_two_jobs_has_not(source: Path, tmp_path: Path) -> None:
    """As of two servers of one name, of which the second does not say its dtype."""
    out = tmp_path / "out"
    embed(source, out)
    told = settings_of(out)
    (out / "_job.json").write_text(json.dumps(told | {"revision": None}))
    assert embed(source, out) == 0
    (out / "_job.json").write_text(json.dumps(told | {"revision": "1"}))
    with pytest.raises(JobError, match=r'begun with revision "1", now null; --overwrite starts again'):
        embed(source, out)


def settings_of(out: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((out / "_manifest.json").read_text())
    settings: dict[str, Any] = manifest["settings"]
    return settings


def test_an_output_of_another_job_is_not_mixed_with_this(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("part-00009.parquet", "_part-00009.parquet.job.json", "_manifest.json", "theirs"):
        (out / name).write_text("{}")
    with pytest.raises(JobError, match=r"what another job left; --overwrite starts again"):
        embed(source, out)
    embed(source, out, overwrite=True)
    assert not [*out.glob("*00009*")]
    assert (out / "theirs").exists()
