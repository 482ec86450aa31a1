"""Before the pair learns to retrieve, its vision tower learns to see: what stands in each part of a picture.

A picture's tokens are asked for its parts one by one (a scene's quarters, a page's lines, a clip as a whole),
which tells the tower far more than one vector for all of it, at a fifth of the cost: no text model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.pair import learner
from benchmarks.pair.batches import drawn
from qvl.engine.demo import codes
from qvl.engine.demo.codes import Code
from qvl.engine.demo.tasks import Item
from qvl.engine.demo.world import random_clip, random_page, random_scene
from qvl.engine.quantize.tensors import patches

SHARES = {"scene": 0.4, "page": 0.2, "clip": 0.4}
PICTURES = {"scene": 64, "page": 48, "clip": 64}
SMALL = (64, 64)


class Head(torch.nn.Module):
    """Thrown away afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2 * learner.HIDDEN, len(codes.ATTRIBUTES))

    def forward(self, seen: Any, pictures: int, parts: int) -> torch.Tensor:
        """(pictures, parts, attributes): the logits of the mean over each part's tokens."""
        tokens = torch.cat([seen.pooler_output, *seen.deepstack_features], dim=-1)
        each: torch.Tensor = self.linear(tokens.view(pictures, parts, -1, tokens.shape[-1]).mean(2))
        return each


def sample(kind: str, rng: np.random.Generator, count: int) -> tuple[list[Item], torch.Tensor]:
    """Pictures, and what is in each part of them: (count, parts, attributes), 0 or 1."""
    if kind == "clip":
        clips = [_clip(rng) for _ in range(count)]
        return [item for item, _ in clips], torch.from_numpy(np.stack([parts for _, parts in clips]))
    things = [random_scene(rng) if kind == "scene" else random_page(rng) for _ in range(count)]
    items = [Item(image=each.draw(rng)) for each in things]
    return items, torch.from_numpy(np.stack([codes.parts(each) for each in things]))


def _clip(rng: np.random.Generator) -> tuple[Item, Code]:
    """Everything, asked of the tokens where the thing was and where it came to, and nothing of the others."""
    clip, (width, height) = random_clip(rng), SMALL
    path = clip.path(rng, SMALL)
    parts = np.zeros((width * height // 32**2, len(codes.ATTRIBUTES)), np.float32)
    for x, y, _ in path:
        parts[y // 32 * (width // 32) + x // 32] = codes.code(clip)
    return Item(frames=tuple(clip.paint(path, rng, SMALL)), small=True), parts


def loss(visual: Any, head: Head, items: Sequence[Item], parts: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Cross entropy for each attribute, and the share of parts that were read without a mistake."""
    shown = [seen for item in items for seen in drawn(item)]
    grid = torch.tensor([each.grid for each in shown])
    logits = head(visual(torch.cat([patches(each) for each in shown]), grid_thw=grid), *parts.shape[:2])
    asked = parts.sum(-1) > 0
    logits, parts = logits[asked], parts[asked]
    there = logits.masked_fill(parts == 0, torch.inf).amin(-1)
    read = (there > logits.masked_fill(parts > 0, -torch.inf).amax(-1)).float().mean()
    return functional.cross_entropy(logits, parts / parts.sum(-1, keepdim=True)), float(read)


def train(model: Any, steps: int, seed: int) -> None:
    rng, head = np.random.default_rng(seed), Head()
    visual = model.model.visual
    optimiser = learner.Optimiser(torch.nn.ModuleList([visual, head]), steps)
    names, shares = list(SHARES), list(SHARES.values())
    kept = dict.fromkeys(names, 0.0)
    for at in range(steps):
        kind = names[rng.choice(len(names), p=shares)]
        missed, read = loss(visual, head, *sample(kind, rng, PICTURES[kind]))
        optimiser.step(missed, at)
        kept[kind] = 0.9 * kept[kind] + 0.1 * read
        if at % 50 == 49:
            print(f"sight {at + 1}  " + "  ".join(f"{k} {v:.3f}" for k, v in kept.items()), flush=True)
