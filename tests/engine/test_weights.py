"""Weights that are not all there are told before vLLM is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qvl.engine import checkpoint
from qvl.engine.config import EngineConfig
from qvl.engine.errors import CheckpointError
from qvl.engine.weights import INDEX
from tests.conftest import Pair

FILE = "model.safetensors"
WHOLE = r"model\.safetensors \([\d,]+ bytes\) is not a whole safetensors file \(.+\): download it again"


@pytest.fixture
def folder(pair: Pair, tmp_path: Path) -> Path:
    return shutil.copytree(pair.embedder, tmp_path / "tiny-embedding")


def find(folder: Path) -> None:
    checkpoint.find(EngineConfig(embedder=str(folder)))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")


def cut_in_its_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def huge_header(file: Path) -> None:
    file.write_bytes((1 << 40).to_bytes(8, "little") + file.read_bytes())


def pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n")


def dangling(file: Path) -> None:
    """As in a hub's cache whose blob is gone."""
    file.unlink()
    file.symlink_to(file.parent / "blob")


def shards(file: Path) -> None:
    index = {"a": FILE, "b": "model-00002-of-00002.safetensors"}
    (file.parent / INDEX).write_text(json.dumps({"weight_map": index}))


def shards_alone(file: Path) -> None:
    file.rename(file.parent / "model-00001-of-00004.safetensors")


def no_index(file: Path) -> None:
    (file.parent / INDEX).write_text("{")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut, WHOLE),
        (longer, WHOLE),
        (cut_in_its_header, WHOLE),
        (huge_header, WHOLE),
        (pointer, WHOLE),
        (lambda file: file.write_bytes(b""), WHOLE),
        (dangling, r"model\.safetensors: No such file or directory: download it again"),
        (shards, r"model-00002-of-00002\.safetensors: No such file or directory: download it again"),
        (shards_alone, r"model-00002-of-00004\.safetensors is missing: download it again"),
        (no_index, r"index\.json: .*: download it again"),
        (Path.unlink, r"no weights \(\*\.safetensors\)"),
    ],
)
def test_weights_that_are_not_all_there_are_one_line(
    folder: Path, spoil: Callable[[Path], object], said: str
) -> None:
    find(folder)
    spoil(folder / FILE)
    with pytest.raises(CheckpointError, match=said) as caught:
        find(folder)
    assert "\n" not in str(caught.value)


def test_what_vllm_reads_is_let_through(folder: Path) -> None:
    """Files beside those of the index, and torch's own kind."""
    shutil.copy(folder / FILE, folder / "model-00001-of-00001.safetensors")
    cut(folder / FILE)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}))
    find(folder)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"torch's")
    find(folder)
