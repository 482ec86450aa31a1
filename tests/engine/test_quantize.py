"""`qvl quantize`: what it writes and what it refuses. An engine serves it in benchmarks/test_quality.py."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qvl.engine import checkpoint, modules
from qvl.engine.config import EngineConfig
from qvl.engine.demo.tiny import write_checkpoint
from qvl.engine.errors import CheckpointError, ConfigError
from qvl.engine.quantize import awq, files, quality
from qvl.engine.quantize.command import quantize
from qvl.engine.quantize.schemes import Scheme, compressed, is_quantised, rounded
from tests.conftest import Pair
from tests.published import LOGIT_SCORE, add_modules

# vLLM and compressed-tensors make torch build script methods on import, which are deprecated.
pytestmark = pytest.mark.filterwarnings(r"ignore:`torch\.jit\.:DeprecationWarning")
SCHEMES: tuple[Scheme, ...] = ("fp8", "int8", "awq")


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
    quantize(str(source), tmp_path / "out", "int8", vision=vision, check=False)
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "out"))
    changed = {name for name in before if name not in after or after[name].dtype != before[name].dtype}
    assert {name for name in before if is_quantised(name, before[name], vision=vision)} == changed
    assert {"lm_head.weight", "model.language_model.embed_tokens.weight"} <= before.keys() - changed
    assert any(".visual." in name for name in changed) is vision
    for name in before.keys() - changed:
        assert torch.equal(before[name], after[name]), name
    ignored = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["ignore"]
    assert any("visual" in each for each in ignored) is not vision


def test_the_role_is_told_whatever_the_folder_is_called(pair: Pair, tmp_path: Path) -> None:
    source = Path(shutil.copytree(pair.reranker, tmp_path / "a-reranker"))
    for file in source.iterdir():
        file.chmod(0o444)
    quantize(str(source), tmp_path / "eight", "int8", check=False)
    assert all(file.stat().st_mode & 0o200 for file in (tmp_path / "eight").iterdir())
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
    (source / files.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    quantize(str(source), tmp_path / "out", "int8", check=False)
    index = files.read_json(tmp_path / "out" / files.INDEX)["weight_map"]
    for file in ("model-0.safetensors", "model-1.safetensors"):
        assert set(load_file(tmp_path / "out" / file)) == {n for n, where in index.items() if where == file}
    one = write_checkpoint(tmp_path / "one-embedder")
    quantize(str(one), tmp_path / "single", "int8", check=False)
    for name, value in load_file(tmp_path / "single" / "model.safetensors").items():
        assert torch.equal(load_file(tmp_path / "out" / index[name])[name], value)


def test_a_search_is_not_lost_on_what_sentence_transformers_saved(pair: Pair, tmp_path: Path) -> None:
    """Hugging Face calls the same weights by longer names once they are loaded."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    add_modules(source, (LOGIT_SCORE, {"true_token_id": 1, "false_token_id": 2}))
    weights = load_file(pair.embedder / "model.safetensors")
    save_file(
        {name.removeprefix("model."): each for name, each in weights.items()}, source / "model.safetensors"
    )
    found = {name: each * 2 for name, each in weights.items()}
    files.write(source, out, "awq", vision=False, instead=found, report=lambda _: None)
    assert modules.tokens(out, {}, {"1": 1, "0": 2}) == (1, 2)
    made = load_file(out / "model.safetensors")
    layer = "language_model.layers.0"
    assert torch.equal(
        made[f"{layer}.input_layernorm.weight"], found[f"model.{layer}.input_layernorm.weight"]
    )
    expected = compressed(found[f"model.{layer}.mlp.up_proj.weight"], "awq")
    assert torch.equal(made[f"{layer}.mlp.up_proj.weight_scale"], expected["weight_scale"])
    del found[f"model.{layer}.input_layernorm.weight"]
    with pytest.raises(CheckpointError, match=r"layers\.0\.input_layernorm\.weight is not in the searched"):
        files.write(source, out, "awq", vision=False, instead=found, report=lambda _: None)


def test_scaling_alone_changes_no_answer(pair: Pair) -> None:
    """Before any rounding, AWQ's model is the same function."""
    ids = torch.randint(0, 500, (1, 40), generator=torch.Generator().manual_seed(1))
    before, after = quality.load(pair.embedder), quality.load(pair.embedder)

    def states(model: Any) -> torch.Tensor:
        with torch.inference_mode():
            hidden: torch.Tensor = model.model(input_ids=ids, use_cache=False).last_hidden_state
        return hidden

    steps: list[int] = []
    awq.scale(after, lambda: (states(after), None)[1], lambda: steps.append(1))
    assert len(steps) == 3 * len(after.model.language_model.layers)
    moved = after.model.language_model.layers[0].self_attn.q_proj.weight
    assert not torch.equal(moved, before.model.language_model.layers[0].self_attn.q_proj.weight)
    torch.testing.assert_close(states(after), states(before), atol=2e-4, rtol=2e-4)


def test_scales_are_better_than_none() -> None:
    """A channel that is large in use keeps more of its bits."""
    generator = torch.Generator().manual_seed(3)
    norm, reader = torch.nn.RMSNorm(256), torch.nn.Linear(256, 64, bias=False)
    inputs = torch.randn(200, 256, generator=generator) * torch.tensor([20.0] + [0.5] * 31).repeat(8)
    site = awq.Site(norm, (reader,))
    with torch.inference_mode():
        found = awq._error(reader.weight.float(), awq._best(site, inputs), inputs)
        plain = awq._error(reader.weight.float(), torch.ones(256), inputs)
    assert found < 0.8 * plain


def test_the_command_reports_size_and_quality(qvl: Callable[..., str], pair: Pair, tmp_path: Path) -> None:
    lines = tmp_path / "calibration.jsonl"
    lines.write_text(
        "".join(json.dumps({"query": f"text {i}", "documents": ["a", f"b {i}"]}) + "\n" for i in range(9))
    )
    said = qvl("quantize", pair.reranker, "--scheme", "int8", "-o", tmp_path / "out", "--calibration", lines)
    assert "28 matrices as int8, 2.9 MB before, 2.4 MB now" in said
    assert "they spread from 0." in said


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
    with pytest.raises(CheckpointError, match="no such folder"):
        quantize(str(tmp_path / "absent"), out, "int8")
    with pytest.raises(ConfigError, match="exists; name a folder that does not"):
        quantize(str(pair.embedder), tmp_path, "int8")
    narrow = write_checkpoint(tmp_path.parent / f"{tmp_path.name}-narrow-embedding", hidden=64)
    with pytest.raises(ConfigError, match="groups of 128, and hidden_size is 64"):
        quantize(str(narrow), out, "awq")
    with pytest.raises(CheckpointError, match=r"cannot read .*narrow-embedding, or not write .*: .*header"):
        (narrow / "model.safetensors").write_bytes(b"junk" * 9)
        quantize(str(narrow), out, "int8", check=False)
    with pytest.raises(CheckpointError, match="no weights"):
        (narrow / "model.safetensors").unlink()
        quantize(str(narrow), out, "int8", check=False)
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, largest[1]))  # as a full disk
    try:
        with pytest.raises(CheckpointError, match="File too large"):
            quantize(str(pair.embedder), out, "int8", check=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, largest)
    assert sorted(tmp_path.iterdir()) == before
