"""Random weights for the tiny pair, wide enough that vectors depend on every position and pixel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.pair.tiny import HEAD_DIM, MERGE, PATCH, POSITIONS, TEMPORAL

Array: TypeAlias = npt.NDArray[np.float32]


def write_weights(path: Path, config: dict[str, Any], seed: int) -> None:
    """bfloat16 under the published names."""
    import torch
    from safetensors.torch import save_file

    rng = np.random.default_rng(seed)
    arrays = [*text_weights(config, rng), *vision_weights(config["vision_config"], rng)]
    tensors = {name: torch.from_numpy(array).to(torch.bfloat16) for name, array in arrays}
    save_file(tensors, path, {"format": "pt"})


def matrix(rng: np.random.Generator, out: int, fan_in: int, gain: float = 1.0) -> Array:
    """(out, fan_in), scaled so that the output varies as much as the input, times `gain`."""
    return rng.standard_normal((out, fan_in), dtype=np.float32) * np.float32(gain / fan_in**0.5)


def around(rng: np.random.Generator, size: int, centre: float, spread: float) -> Array:
    """(size,): a norm's scale or a bias, different in each channel so that a swapped channel shows."""
    return (centre + spread * rng.standard_normal(size)).astype(np.float32)


def text_weights(config: dict[str, Any], rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
    """The last norm's 0.3 keeps the yes/no logits within a few units, so that scores spread over (0, 1)."""
    text = config["text_config"]
    hidden, inner, rows = text["hidden_size"], text["intermediate_size"], text["vocab_size"]
    queries, keys = text["num_attention_heads"] * HEAD_DIM, text["num_key_value_heads"] * HEAD_DIM
    yield "model.language_model.embed_tokens.weight", matrix(rng, rows, hidden, 0.5 * hidden**0.5)
    for index in range(text["num_hidden_layers"]):
        layer = f"model.language_model.layers.{index}"
        yield f"{layer}.input_layernorm.weight", around(rng, hidden, 1, 0.2)
        yield f"{layer}.self_attn.q_proj.weight", matrix(rng, queries, hidden)
        yield f"{layer}.self_attn.k_proj.weight", matrix(rng, keys, hidden)
        yield f"{layer}.self_attn.v_proj.weight", matrix(rng, keys, hidden, 2)
        yield f"{layer}.self_attn.o_proj.weight", matrix(rng, hidden, queries)
        yield f"{layer}.self_attn.q_norm.weight", around(rng, HEAD_DIM, 1.5, 0.2)
        yield f"{layer}.self_attn.k_norm.weight", around(rng, HEAD_DIM, 1.5, 0.2)
        yield f"{layer}.post_attention_layernorm.weight", around(rng, hidden, 1, 0.2)
        yield f"{layer}.mlp.gate_proj.weight", matrix(rng, inner, hidden)
        yield f"{layer}.mlp.up_proj.weight", matrix(rng, inner, hidden)
        yield f"{layer}.mlp.down_proj.weight", matrix(rng, hidden, inner)
    yield "model.language_model.norm.weight", around(rng, hidden, 0.3, 0.05)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", matrix(rng, rows, hidden, 0.5 * hidden**0.5)


def vision_weights(vision: dict[str, Any], rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
    size, inner = vision["hidden_size"], vision["intermediate_size"]
    pixels = (3, TEMPORAL, PATCH, PATCH)
    yield from linear(rng, "model.visual.patch_embed.proj", size, 3 * TEMPORAL * PATCH * PATCH, shape=pixels)
    yield "model.visual.pos_embed.weight", matrix(rng, POSITIONS, size, 0.5 * size**0.5)
    for index in range(vision["depth"]):
        block = f"model.visual.blocks.{index}"
        yield from layer_norm(rng, f"{block}.norm1", size)
        yield from layer_norm(rng, f"{block}.norm2", size)
        yield from linear(rng, f"{block}.attn.qkv", 3 * size, size, gain=1.5)
        yield from linear(rng, f"{block}.attn.proj", size, size)
        yield from linear(rng, f"{block}.mlp.linear_fc1", inner, size)
        yield from linear(rng, f"{block}.mlp.linear_fc2", size, inner)
    mergers = [f"deepstack_merger_list.{i}" for i in range(len(vision["deepstack_visual_indexes"]))]
    for name in ("merger", *mergers):
        merged = size * MERGE**2
        yield from layer_norm(rng, f"model.visual.{name}.norm", size if name == "merger" else merged)
        yield from linear(rng, f"model.visual.{name}.linear_fc1", merged, merged)
        yield from linear(rng, f"model.visual.{name}.linear_fc2", vision["out_hidden_size"], merged)


def linear(
    rng: np.random.Generator, name: str, out: int, fan_in: int, gain: float = 1.0, shape: tuple[int, ...] = ()
) -> Iterator[tuple[str, Array]]:
    weight = matrix(rng, out, fan_in, gain)
    yield f"{name}.weight", weight.reshape(out, *shape) if shape else weight
    yield f"{name}.bias", around(rng, out, 0, 0.1)


def layer_norm(rng: np.random.Generator, name: str, size: int) -> Iterator[tuple[str, Array]]:
    yield f"{name}.weight", around(rng, size, 1, 0.2)
    yield f"{name}.bias", around(rng, size, 0, 0.1)
