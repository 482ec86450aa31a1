"""AWQ's search for scales: it changes nothing but what is rounded, and finds better ones than none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qvl.engine import sentence_modules
from qvl.engine.errors import CheckpointError
from qvl.engine.quantize import awq, files, original
from qvl.engine.quantize.schemes import compressed
from tests.conftest import Pair
from tests.published import LOGIT_SCORE, add_modules

# vLLM and compressed-tensors make torch build script methods on import, which are deprecated.
pytestmark = pytest.mark.filterwarnings(r"ignore:`torch\.jit\.:DeprecationWarning")


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
    assert sentence_modules.tokens(out, {}, {"1": 1, "0": 2}) == (1, 2)
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
    before, after = original.load(pair.embedder), original.load(pair.embedder)

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
