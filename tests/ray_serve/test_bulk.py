"""`qvl embed --ray`: a killed worker costs its block, a stopped command nothing; every row comes once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qvl.ray_serve import workers as workers_of_ray
from tests import web
from tests.conftest import Pair
from tests.engine.conftest import Fake, fake, qvl
from tests.ray_serve.cluster import title
from tests.replicas import gone

__all__ = ["fake", "qvl"]

pytestmark = pytest.mark.engine

BLOCK = 20
ITEMS = 305


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    texts = [f"text {i}" if i % 50 else "BAD" for i in range(ITEMS)]
    path.write_text("".join(json.dumps(text) + "\n" for text in texts))
    return path


def command(source: Path, out: Path, url: str, *more: str) -> list[str]:
    options = ["--ray", "--url", url, "--ray-workers", "2", "--worker-cpus", "0.5", "--block", str(BLOCK)]
    options += ["--batch", "5", "--in-flight", "1", *more]
    return [sys.executable, "-m", "qvl.engine.cli", "embed", str(source), "-o", str(out), *options]


def until(done: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 900
    while not done():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def parts(out: Path) -> list[Path]:
    return sorted(out.glob("part-*.parquet"))


def workers(process: subprocess.Popen[bytes]) -> Iterator[psutil.Process]:
    for each in psutil.Process(process.pid).children(recursive=True):
        if "ray::Worker.block" in title(each):
            yield each


def asked(server: Fake) -> Counter[str]:
    return Counter(text for entry in server.log() for text in entry["body"]["input"])


def test_workers_and_the_command_are_killed_and_every_row_comes_once(
    fake: Callable[..., Fake], qvl: Callable[..., str], source: Path, tmp_path: Path
) -> None:
    server, out, log, victims = fake(delay=0.5), tmp_path / "out", tmp_path / "log", []

    def working() -> bool:
        victims[:] = workers(process)
        return len(parts(out)) >= 2 and bool(victims)

    with log.open("w") as stderr:
        process = subprocess.Popen(command(source, out, server.url), stderr=stderr)
    until(working, process, log)
    victims[0].kill()
    until(lambda: len(parts(out)) >= 5 and "a worker was lost; block" in log.read_text(), process, log)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 143
    assert log.read_text().endswith("stopped; the same command goes on from here\n")
    assert gone(family)
    kept = {path: path.stat().st_mtime_ns for path in parts(out)}
    assert not (out / "_manifest.json").exists()

    said = qvl(*command(source, out, server.url)[3:])
    assert "of 16 blocks were done before" in said
    assert "298 rows in 16 files, 7 bad items left out" in said
    again = [path for path, moment in kept.items() if path.stat().st_mtime_ns != moment]
    assert len(again) <= 2, "a worker each may end between its part's place and its record"
    table = pa.concat_tables([pq.read_table(path) for path in parts(out)])
    assert table["index"].to_pylist() == [i for i in range(ITEMS) if i % 50]
    manifest = json.loads((out / "_manifest.json").read_text())
    assert sum(each["rows"] for each in manifest["parts"]) == manifest["rows"] == 298
    assert {path.name for path in parts(out)} == {each["file"] for each in manifest["parts"]}
    counts = asked(server)
    assert counts.pop("BAD") >= 7
    # The killed worker's block, and those that the command was stopped in.
    assert sum(counts.values()) - len(counts) <= 3 * BLOCK

    before = len(server.log())
    assert "298 rows in 16 files" in qvl(*command(source, out, server.url)[3:])
    assert len(server.log()) == before
    told = qvl(*command(source, out, server.url, "--instruction", "Other.")[3:], code=2)
    assert 'begun with instruction null, now "Other."; --overwrite starts again' in told


def test_a_folder_of_all_kinds_on_the_real_engine(
    pair: Pair, tmp_path: Path, qvl: Callable[..., str], server: Any
) -> None:
    from tests.parity import cases

    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    (corpus / "picture.png").write_bytes(cases.image(96, 64))
    (corpus / "note.txt").write_text("a red shape")
    pq.write_table(pa.table({"text": ["a blue shape", "a green one"]}), corpus / "rows.parquet")
    (corpus / "lines.jsonl").write_text('{"id": "x", "text": "a red shape"}\n')
    options = ["--embedder", str(pair.embedder), "--dtype", "float32", "--worker-cpus", "0.5"]
    said = qvl("embed", corpus, "-o", out, "--ray", *options)
    assert "5 rows in 3 files" in said
    table = pa.concat_tables([pq.read_table(path) for path in parts(out)])
    assert table["id"].to_pylist() == ["x", "1", "2", "note.txt", "picture.png"]
    found = np.asarray(table["embedding"].to_pylist(), np.float32)
    np.testing.assert_allclose(found[0], found[3], atol=1e-5)

    import base64

    inputs = ["a red shape", "a blue shape", "a green one", "a red shape"]
    picture = {"image": base64.b64encode((corpus / "picture.png").read_bytes()).decode()}
    answer = web.post(f"{server.url}/v1/embeddings", json={"input": [*inputs, picture]}, timeout=60)
    served = np.asarray([each["embedding"] for each in answer.json()["data"]], np.float32)
    np.testing.assert_allclose(found, served, atol=1e-5)


@pytest.mark.parametrize("sent", [(signal.SIGTERM,), ()], ids=["SIGTERM", "Ctrl-C"])
def test_ray_which_raises_an_interrupt_of_its_own_hides_no_signal(
    sent: tuple[signal.Signals, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(shutdown=lambda: None))
    monkeypatch.setattr(workers_of_ray, "join", lambda *_, **__: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(KeyboardInterrupt) as stopped, workers_of_ray.cluster(None):
            for number in sent:
                with suppress(KeyboardInterrupt):
                    signal.raise_signal(number)
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped.value.args == sent


def test_the_output_is_a_folder(source: Path, qvl: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    assert "give -o" in qvl(*command(source, out, "http://127.0.0.1:9")[3:], code=2)
    assert not out.exists()
