"""Prompts and pictures to padded tensors for Hugging Face's Qwen3-VL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from qvl.engine.media.visual import MERGE, PATCH, TEMPORAL, Visual

Tensors: TypeAlias = dict[str, torch.Tensor]


def tensors(
    rows: Sequence[Sequence[int]], visuals: Sequence[Sequence[Visual]], config: dict[str, Any]
) -> Tensors:
    """A batch of token ids, padded on the right, and of what each row shows."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    kinds = ((ids == config["image_token_id"]) * 1 + (ids == config["video_token_id"]) * 2) * mask
    batch = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": kinds.int()}
    flat = [each for seen in visuals for each in seen]
    for kind, suffix in (("image", ""), ("video", "_videos")):
        if chosen := [each for each in flat if each.kind == kind]:
            batch[f"pixel_values{suffix}"] = torch.cat([patches(each) for each in chosen])
            batch[f"{kind}_grid_thw"] = torch.tensor([each.grid for each in chosen])
    return batch


def patches(seen: Visual) -> torch.Tensor:
    """(patches, 3 · 2 · 16 · 16) in the processor's order: blocks of two by two patches."""
    pixels = torch.from_numpy(seen.pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    if len(pixels) == 1:
        pixels = pixels.expand(TEMPORAL, -1, -1, -1)
    t, h, w = seen.grid
    cut = pixels.reshape(t, TEMPORAL, 3, h // MERGE, MERGE, PATCH, w // MERGE, MERGE, PATCH)
    return cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * h * w, -1)
