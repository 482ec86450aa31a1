"""A disk that fills while a job writes: one line that says so, nothing torn, and the same command goes on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.conftest import QVL, Start

ROWS = 400
_IN_A_NAMESPACE = ["unshare", "--map-root-user", "--mount"]
_SCRIPT = """
mount -t tmpfs -o size=$SIZE none "$DISK" || exit 99
"$@" 2> "$SAID/first"; echo $? > "$SAID/first.code"
ls "$DISK" > "$SAID/left"
mount -o remount,size=16m "$DISK"
"$@" 2> "$SAID/second"; echo $? > "$SAID/second.code"
cp "$DISK"/out.* "$SAID"
"""


@pytest.mark.parametrize(
    ("suffix", "size"),
    [("jsonl", "24k"), ("npz", "96k"), ("parquet", "96k")],
    ids=["while lines are answered", "while the npz is made", "while the parquet is made"],
)
def test_a_full_disk(fake: Start, tmp_path: Path, suffix: str, size: str) -> None:
    can = subprocess.run([*_IN_A_NAMESPACE, "true"], capture_output=True, check=False)
    if can.returncode:
        pytest.skip("needs mount namespaces of one's own (unshare --map-root-user --mount)")
    source, disk, said = tmp_path / "in.jsonl", tmp_path / "disk", tmp_path / "said"
    source.write_text("".join(json.dumps(f"text {i}") + "\n" for i in range(ROWS)))
    disk.mkdir()
    said.mkdir()
    server = fake(dimensions=32)
    command = [*QVL, "embed", str(source)]
    command += ["-o", str(disk / f"out.{suffix}"), "--url", server.url, "--batch", "10"]
    environment = {"SIZE": size, "DISK": str(disk), "SAID": str(said)}
    shell = ["env", *(f"{name}={value}" for name, value in environment.items()), "sh", "-c", _SCRIPT, "sh"]
    subprocess.run([*_IN_A_NAMESPACE, *shell, *command], check=True, timeout=600)

    assert (said / "first.code").read_text() == "2\n"
    complaint = (said / "first").read_text().splitlines()[-1]
    assert "No space left on device" in complaint
    assert "the same command goes on from here" in complaint
    assert "Traceback" not in (said / "first").read_text()
    assert (f"{ROWS} lines in" in (said / "first").read_text()) is (size == "96k")
    assert f"out.{suffix}" not in (said / "left").read_text().split()
    assert (said / "second.code").read_text() == "0\n", (said / "second").read_text()
    indices, vectors = read(said / f"out.{suffix}")
    assert indices == list(range(ROWS))
    assert vectors.shape == (ROWS, 32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def read(path: Path) -> tuple[list[int], np.ndarray[Any, Any]]:
    if path.suffix == ".npz":
        found = np.load(path)
        return [int(each) for each in found["ids"]], found["embeddings"]
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        return table["index"].to_pylist(), np.asarray(table["embedding"].to_pylist())
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row["index"] for row in rows], np.asarray([row["embedding"] for row in rows])
