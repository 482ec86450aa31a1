"""`qvl quantize`: what it writes and what it refuses. An engine serves it in benchmarks/test_quality.py."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from qvl.engine import checkpoint, cli, weights
from qvl.engine.checkpoint import Role
from qvl.engine.config import EngineConfig
from qvl.engine.errors import CheckpointError, ConfigError
from qvl.engine.quantize import original
from qvl.engine.quantize.command import quantize
from qvl.engine.quantize.schemes import Scheme, compressed, is_quantised, rounded
from tests.conftest import Pair
from tests.tiny import write_checkpoint

# vLLM and compressed-tensors make torch build script methods on import, which are deprecated.
pytestmark = pytest.mark.filterwarnings(r"ignore:`torch\.jit\.:DeprecationWarning")
SCHEMES: tuple[Scheme, ...] = ("fp8", "int8", "awq")


def out_of_a_gpu_s_memory(_: Path) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_stands_in_the_file_is_the_rounded_matrix(scheme: Scheme) -> None:
    from compressed_tensors.compressors import BaseCompressor

    from qvl.engine.quantize.schemes import FORMATS, scheme_of

    weight = torch.randn(96, 256, generator=torch.Generator().manual_seed(0))
    made = compressed(weight, scheme)
    bits = {"fp8": 8, "int8": 8, "awq": 4}[scheme]
    values = made.get("weight_packed", made.get("weight"))
    assert values is not None
    assert values.nbytes == weight.numel() * bits // 8
    back = BaseCompressor.get_value_from_registry(FORMATS[scheme]).decompress(made, scheme_of(scheme))[
        "weight"
    ]
    torch.testing.assert_close(back.float(), rounded(weight, scheme), atol=1e-6, rtol=1e-6)
    assert float((back - weight).abs().max()) < {"fp8": 0.3, "int8": 0.02, "awq": 0.3}[scheme]


@pytest.mark.parametrize("vision", [False, True])
def test_the_embedding_the_head_and_by_default_the_vision_tower_stay(tmp_path: Path, vision: bool) -> None:
    source = write_checkpoint(tmp_path / "a-reranker", tied=False)
    quantize(str(source), tmp_path / "out", "int8", vision=vision)
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "out"))
    changed = {name for name in before if name not in after or after[name].dtype != before[name].dtype}
    assert {name for name in before if is_quantised(name, before[name], vision=vision)} == changed
    assert {"lm_head.weight", "model.language_model.embed_tokens.weight"} <= before.keys() - changed
    assert any(".visual." in name for name in changed) is vision
    for name in before.keys() - changed:
        assert torch.equal(before[name], after[name]), name
    ignored = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["ignore"]
    assert any("visual" in each for each in ignored) is not vision


@pytest.mark.parametrize(
    ("called", "role"), [("models--me--a-reranker/snapshots/0e1f", None), ("weights", "reranker")]
)
def test_the_role_is_told_whatever_the_folder_is_called(
    called: str, role: Role | None, pair: Pair, tmp_path: Path
) -> None:
    """The first as the hub's cache calls it."""
    source = Path(shutil.copytree(pair.reranker, tmp_path / called))
    for file in source.iterdir():
        file.chmod(0o444)
    quantize(str(source), tmp_path / "eight", "int8", role=role)
    modes = {file.name: file.stat().st_mode & 0o666 for file in (tmp_path / "eight").iterdir()}
    assert all(mode & 0o200 for mode in modes.values())
    assert modes["model.safetensors"] == modes["config.json"]
    with pytest.raises(ConfigError, match="quantised already; start from the original"):
        quantize(str(tmp_path / "eight"), tmp_path / "four", "awq")
    (found,) = checkpoint.find(EngineConfig(models=(str(tmp_path / "eight"),)))
    assert (found.role, found.name) == ("reranker", "eight")


def test_weights_in_several_files_stay_in_several_files(pair: Pair, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "an-embedder")
    whole = load_file(source / "model.safetensors")
    names = sorted(whole)
    (source / "model.safetensors").unlink()
    places = {name: f"model-{place % 2}.safetensors" for place, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: whole[name] for name in names if places[name] == file}, source / file)
    (source / weights.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    quantize(str(source), tmp_path / "out", "int8")
    index = json.loads((tmp_path / "out" / weights.INDEX).read_text())["weight_map"]
    for file in ("model-0.safetensors", "model-1.safetensors"):
        assert set(load_file(tmp_path / "out" / file)) == {n for n, where in index.items() if where == file}
    one = write_checkpoint(tmp_path / "one-embedder")
    quantize(str(one), tmp_path / "single", "int8")
    for name, value in load_file(tmp_path / "single" / "model.safetensors").items():
        assert torch.equal(load_file(tmp_path / "out" / index[name])[name], value)


def test_what_the_index_leaves_out_is_no_weight(tmp_path: Path) -> None:
    """As a training run's states, which lie beside the model."""
    source = write_checkpoint(tmp_path / "an-embedder")
    file = (source / "model.safetensors").rename(source / "model-1.safetensors")
    whole = load_file(file)
    (source / weights.INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(whole, file.name)}))
    save_file({name: each * 2 for name, each in whole.items()}, source / "optimizer-step-10.safetensors")
    out = tmp_path / "out"
    quantize(str(source), out, "int8")
    assert [each.name for each in weights.files(out)] == [each.name for each in weights.files(source)]
    assert [each.name for each in out.glob("*.safetensors")] == [file.name]
    norm = "model.language_model.norm.weight"
    assert torch.equal(load_file(out / file.name)[norm], whole[norm])


def test_the_command_says_sizes_and_how_to_compare(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, out = tmp_path / "calibration.jsonl", tmp_path / "my out"
    lines.write_text(
        "".join(json.dumps({"query": f"text {i}", "documents": ["a", f"b {i}"]}) + "\n" for i in range(9))
    )
    asked = ["quantize", str(pair.reranker), "--scheme", "awq", "-o", str(out), "--calibration", str(lines)]
    assert cli.main(asked) == 0
    *_, sizes, compare = capsys.readouterr().err.splitlines()
    assert "28 matrices as awq, 2.9 MB before, 2.1 MB now" in sizes
    assert compare == f"qvl: compare: qvl check '{out}' --against {pair.reranker}"


def test_too_little_memory_for_the_search_is_told(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the CPU's torch, numpy and the GPU's torch."""
    for failing in (
        lambda _: torch.empty(1 << 50),
        lambda _: np.empty(1 << 60, np.int8),
        out_of_a_gpu_s_memory,
    ):
        monkeypatch.setattr(original, "load", failing)
        with pytest.raises(CheckpointError, match="out of memory: the whole model must fit"):
            quantize(str(pair.embedder), tmp_path / "out", "awq")
        assert not list(tmp_path.iterdir())


def test_refusals_leave_nothing_behind(pair: Pair, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('"fine"\n\n{"texts": "x"}\n')
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"query": "a", "documents": ["b"]}\n{"query": "a", "documents": 5}\n')
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"image": "data:image/png;base64,AAAA"}\n')
    before = sorted(tmp_path.iterdir())
    out = tmp_path / "out"
    for model, calibration, match in (
        (pair.embedder, bad, r"bad\.jsonl, line 3: .*texts"),
        (pair.embedder, broken, r"broken\.jsonl, line 1: "),
        (pair.reranker, pairs, r"pairs\.jsonl, line 2: documents must be a list"),
    ):
        with pytest.raises(ConfigError, match=match):
            quantize(str(model), out, "awq", calibration=calibration)
    with pytest.raises(ConfigError, match="no folder"):
        quantize(str(pair.embedder), out / "deeper", "int8")
    with pytest.raises(ConfigError, match="--vision goes with fp8 and int8"):
        quantize(str(pair.embedder), out, "awq", vision=True)
    with pytest.raises(ConfigError, match="--calibration goes with awq"):
        quantize(str(pair.embedder), out, "fp8", calibration=bad)
    with pytest.raises(CheckpointError, match="no such folder"):
        quantize(str(tmp_path / "absent"), out, "int8")
    with pytest.raises(ConfigError, match="exists; name a folder that does not"):
        quantize(str(pair.embedder), tmp_path, "int8")
    narrow = write_checkpoint(tmp_path.parent / f"{tmp_path.name}-narrow-embedding", hidden=64)
    with pytest.raises(ConfigError, match="groups of 128, and hidden_size is 64"):
        quantize(str(narrow), out, "awq")
    with pytest.raises(CheckpointError, match=r"narrow-embedding/model.* is not a whole safetensors file"):
        (narrow / "model.safetensors").write_bytes(b"junk" * 9)
        quantize(str(narrow), out, "int8")
    (narrow / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        quantize(str(narrow), out, "int8")
    (narrow / "pytorch_model.bin").write_bytes(b"torch's")
    with pytest.raises(CheckpointError, match="no weights to quantise"):
        quantize(str(narrow), out, "int8")
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, largest[1]))  # as a full disk
    try:
        with pytest.raises(CheckpointError, match="File too large"):
            quantize(str(pair.embedder), out, "int8")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, largest)
    assert sorted(tmp_path.iterdir()) == before
