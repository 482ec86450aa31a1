"""Random weights for a real config: the published dimensions without the published numbers.

Matrices keep the variance of their input and each layer's two outputs are scaled by 1/√(2·layers), so that
states neither vanish nor explode over 36 layers and bfloat16 stays as close to float32 as in a trained net.
All contestants load the same file, so their answers can be compared.
"""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, Qwen3VLForConditionalGeneration

_NAME = "model.safetensors"
_LOGITS = 2.0
_ATTENTION = 1.6
"""Of the norms of queries and keys: attention falls on a few tokens, as a trained net's does. At 1 it falls
on all of a long text's, whose mean says little, and two such texts get nearly the same vector."""
_RESIDUAL = ("o_proj", "down_proj", "attn.proj", "linear_fc2")


def write(source: Path, out: Path, seed: int) -> None:
    """Copy the small files and write the weights, on the GPU's generator where there is one."""
    out.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and not file.name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copy(file, out / file.name)
    config = AutoConfig.from_pretrained(source)
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(seed)
    gain = 1 / math.sqrt(2 * config.text_config.num_hidden_layers)
    tensors = {name: tensor(name, shape, gain, generator) for name, shape in shapes.items()}
    save_file(tensors, out / _NAME, {"format": "pt"})
    size = sum(each.numel() for each in tensors.values())
    sys.stderr.write(f"wrote {size / 1e9:.2f} billion weights to {out / _NAME}\n")


def tensor(name: str, shape: torch.Size, gain: float, generator: torch.Generator) -> torch.Tensor:
    """bfloat16 on the CPU."""
    values = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)
    if name.endswith(".bias"):
        values *= 0.05
    elif len(shape) == 1:
        values = 1 + 0.1 * values
        if name.endswith("language_model.norm.weight"):
            # Yes and no then differ by a unit or two, so that scores spread over (0, 1).
            values *= _LOGITS / math.sqrt(values.numel())
        elif name.endswith(("q_norm.weight", "k_norm.weight")):
            values *= _ATTENTION
    elif "embed" in name and not name.endswith("patch_embed.proj.weight"):
        values *= 0.5
    else:
        values /= math.sqrt(values[0].numel())
        if any(part in name for part in _RESIDUAL):
            values *= gain
    return values.to(torch.bfloat16).cpu()
