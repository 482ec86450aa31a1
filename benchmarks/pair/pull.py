"""The loss that pulls vectors to the codes of what they stand for, and away from each other's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional

from benchmarks.pair import learner
from qvl.engine.demo import codes
from qvl.engine.demo.codes import Code

TEMPERATURE = 0.05
FRAME = torch.from_numpy(codes.frame(learner.HIDDEN))


def targets(wanted: Sequence[Code]) -> torch.Tensor:
    """(items, hidden): where the vectors of these codes should be."""
    return functional.normalize(torch.from_numpy(np.stack(wanted)) @ FRAME, dim=-1)


def pull(
    vectors: torch.Tensor, target: torch.Tensor, widths: Mapping[int, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance to the targets, and InfoNCE among them at each width; also how near each vector is.

    `vectors` are (items, width), normalised, and `target` at least as wide.
    """
    near = (vectors * cut(target, vectors.shape[1])).sum(-1)
    loss = 4 * (1 - near).mean()
    places = torch.arange(len(near))
    # An item that is to be taken for the same is no negative.
    same = (target @ target.T > 1 - 1e-3) & ~torch.eye(len(near), dtype=torch.bool)
    # int8 vectors are off by half a step; the range of a component is about three deviations.
    noisy = vectors + (torch.rand_like(vectors) - 0.5) * (3 / vectors.shape[1] ** 0.5 / 127)
    for width, weight in widths.items():
        scores = (cut(noisy, width) @ cut(target, width).T / TEMPERATURE).masked_fill(same, -1e4)
        loss = loss + 0.5 * weight * functional.cross_entropy(scores, places)
    return loss, near.detach()


def cut(vectors: torch.Tensor, width: int) -> torch.Tensor:
    return functional.normalize(vectors[:, :width], dim=-1)
