"""What vLLM is told of weights in fewer bits, and what is refused before it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qvl.engine import checkpoint, compat, quantization
from qvl.engine.checkpoint import Checkpoint
from qvl.engine.config import EngineConfig
from qvl.engine.errors import CheckpointError, ConfigError
from qvl.engine.text_side import load_text_side
from tests.conftest import Pair
from tests.parity.conftest import vllm_warnings

INT8 = {"quant_method": "compressed-tensors", "format": "int-quantized"}


@pytest.mark.parametrize(
    ("name", "vision", "quantised"),
    [("fp8", False, [True, False, False]), ("fp8_per_channel", True, [True, True, True]), (None, False, [])],
)
def test_the_vision_tower_is_quantised_when_it_is_said(
    *, name: str | None, vision: bool, quantised: list[bool], pair: Pair
) -> None:
    config = EngineConfig(models=(str(pair.embedder),), quantization=name, quantize_vision=vision)
    (found,) = checkpoint.find(config)
    side = load_text_side(found)
    layers = (
        "language_model.model.layers.0.mlp.down_proj",
        "visual.blocks.0.attn.qkv",
        "visual.merger.linear_fc1",
    )
    with vllm_warnings():
        from vllm.model_executor.layers.quantization.compressed_tensors.utils import should_ignore_layer

        args = compat.engine_args(config, found, side, pixels="/file", shared=False)
        method = args.create_engine_config().quant_config
        left = [should_ignore_layer(each, ignore=method.ignored_layers) for each in layers] if method else []
    assert [not each for each in left] == quantised


def test_fp8_on_a_gpu_that_does_not_compute_in_it(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """There vLLM has no kernel for a scale a channel."""
    monkeypatch.setattr(quantization, "_multiplies_fp8", lambda: False)
    config = EngineConfig(models=(str(pair.embedder),), quantization="fp8")
    (found,) = checkpoint.find(config)
    side = load_text_side(found)
    args = compat.engine_args(config, found, side, pixels="/file", shared=False)
    assert args.quantization == "fp8_per_tensor"


@pytest.mark.parametrize(
    "name", ["int8", "int8_per_channel_weight_only", "nvfp4_per_token", "experts_int8", "online"]
)
def test_what_would_quantise_nothing_is_refused(name: str, pair: Pair) -> None:
    """vLLM knows all but the first, and would serve these models as they are."""
    config = EngineConfig(embedder=str(pair.embedder), quantization=name)
    (found,) = checkpoint.find(config)
    with vllm_warnings(), pytest.raises(ConfigError, match=rf"{name}.* does nothing .*fp8_per_block"):
        quantization.settings(config, found)


def quantised(pair: Pair, folder: Path, **of: Any) -> Checkpoint:
    shutil.copytree(pair.embedder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": of}))
    (found,) = checkpoint.find(EngineConfig(embedder=str(folder)))
    return found


def test_a_quantised_checkpoint_says_for_itself(pair: Pair, tmp_path: Path) -> None:
    def asked(found: Checkpoint, name: str | None, *, vision: bool = False) -> dict[str, Any]:
        config = EngineConfig(embedder=str(found.path), quantization=name, quantize_vision=vision)
        with vllm_warnings():
            return quantization.settings(config, found)

    eight = quantised(pair, tmp_path / "eight-embedder", **INT8)
    block = quantised(pair, tmp_path / "block-embedder", quant_method="fp8")
    assert asked(eight, None) == {"quantization": None}
    assert asked(block, "fp8") == {"quantization": "fp8"}
    assert asked(block, "humming") == {"quantization": "humming"}  # another kernel for the same weights
    with pytest.raises(ConfigError, match=r"eight-embedder is quantised already \(compressed-tensors\)"):
        asked(eight, "fp8")
    with pytest.raises(ConfigError, match=r"block-embedder is quantised already \(fp8\)"):
        asked(block, "fp8", vision=True)


def test_int8_on_a_gpu_without_a_kernel_for_it(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "_lacks_int8", lambda: True)
    config = EngineConfig(embedder="x")
    with vllm_warnings():
        with pytest.raises(CheckpointError, match=r"no INT8 kernel for this GPU .*--scheme fp8"):
            quantization.settings(config, quantised(pair, tmp_path / "eight-embedder", **INT8))
        found = quantised(pair, tmp_path / "four-embedder", **{**INT8, "format": "pack-quantized"})
        assert quantization.settings(config, found) == {"quantization": None}


def test_vision_alone_is_not_quantised() -> None:
    with pytest.raises(ConfigError, match="--quantize-vision needs --quantization"):
        EngineConfig(embedder="x", quantize_vision=True)
