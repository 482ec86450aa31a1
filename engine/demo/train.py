"""Train the demo's pair from nothing.

    python -m qvl.engine.demo.train embedder --out work/embedder
    python -m qvl.engine.demo.train reranker --out work/reranker --embedder work/embedder

The same arguments give the same weights on one machine. A stopped run goes on where it was saved last.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from qvl.engine.checkpoint import Role, find, load_text_side
from qvl.engine.config import EngineConfig
from qvl.engine.demo import codes, judging, learner, sight, tasks
from qvl.engine.demo.batches import Collator, last_hidden
from qvl.engine.demo.tasks import Example

SEED = 2026
SHARES = {
    "text to image": 0.2,
    "image to text": 0.1,
    "page": 0.25,
    "mixed": 0.15,
    "colours": 0.05,
    "shapes": 0.07,
    "small video": 0.06,
    "video": 0.12,
}
BATCH = {"video": 6, "small video": 16}
PAIRS = 24
SIGHT_STEPS = 500
HORIZON = 4000
SAVED_EVERY = 100
TEMPERATURE = 0.05
MATRYOSHKA = {128: 1.0, 64: 0.5, 32: 0.25}


def collator(folder: Path, role: Role) -> Collator:
    named = EngineConfig(embedder=str(folder)) if role == "embedder" else EngineConfig(reranker=str(folder))
    [checkpoint] = find(named)
    return Collator(load_text_side(checkpoint), checkpoint.config)


def train_embedder(folder: Path, steps: int, threads: int, until: int | None = None) -> None:
    """`until` stops early; the schedule is that of `steps`."""
    torch.set_num_threads(threads)
    learner.write_untrained(folder, append_end=True)
    model = learner.build(folder, SEED).train()
    collate, optimiser = collator(folder, "embedder"), learner.Optimiser(model, steps, horizon=HORIZON)
    basis = torch.from_numpy(codes.frame(learner.HIDDEN))
    rng = np.random.default_rng(SEED)
    names, shares = list(SHARES), list(SHARES.values())
    started, seen = time.monotonic(), dict.fromkeys(names, 0.0)
    first = optimiser.resume(folder, rng)
    if not first:
        sight.train(model, SIGHT_STEPS, SEED)
    for at in range(first, until or steps):
        task = names[rng.choice(len(names), p=shares)]
        examples = tasks.sample(task, rng, BATCH.get(task, PAIRS))
        loss, near = embedder_loss(model, collate, basis, examples)
        optimiser.step(loss, at)
        seen[task] = 0.9 * seen[task] + 0.1 * near
        if at % 100 == 99:
            line = "  ".join(f"{name} {value:.3f}" for name, value in seen.items())
            print(f"{at + 1} {time.monotonic() - started:.0f}s  {line}", flush=True)
        if at % SAVED_EVERY == SAVED_EVERY - 1 or at == steps - 1:
            optimiser.save(folder, at, rng)
            learner.save(model, folder)


def train_reranker(embedder: Path, folder: Path, steps: int, threads: int) -> None:
    torch.set_num_threads(threads)
    miner = judging.Miner(learner.build(embedder, SEED).eval(), collator(embedder, "embedder"))
    model = judging.start(embedder, folder)
    judging.train(miner, collator(folder, "reranker"), model, folder, steps)


def embedder_loss(
    model: Any, collate: Collator, basis: torch.Tensor, examples: Sequence[Example]
) -> tuple[torch.Tensor, float]:
    """Distance to the codes, and InfoNCE at each width; also how near to their codes the vectors came."""
    half = len(examples)
    wanted = np.stack([e.query_code for e in examples] + [e.document_code for e in examples])
    target = functional.normalize(torch.from_numpy(wanted) @ basis, dim=-1)
    # Apart, since one side is longer than the other, and padding costs as much as text.
    sides = [collate.items([e.query for e in examples]), collate.items([e.document for e in examples])]
    vectors = functional.normalize(torch.cat([last_hidden(model.model, side) for side in sides]), dim=-1)
    near = (vectors * target).sum(-1)
    loss = 4 * (1 - near).mean()
    ideal = target[:half] @ target[half:].T
    # A document that the codes call as good as the right one is no negative.
    same = (ideal > ideal.diagonal()[:, None] - 1e-3) & ~torch.eye(half, dtype=torch.bool)
    # int8 vectors are off by half a step; the range of a component is about three deviations.
    noisy = vectors + (torch.rand_like(vectors) - 0.5) * (3 / learner.HIDDEN**0.5 / 127)
    for width, weight in MATRYOSHKA.items():
        cut = functional.normalize(noisy[:, :width], dim=-1)
        scores = (cut[:half] @ cut[half:].T / TEMPERATURE).masked_fill(same, -1e4)
        loss = loss + 0.5 * weight * functional.cross_entropy(scores, torch.arange(half))
        if not same.any():
            loss = loss + 0.5 * weight * functional.cross_entropy(scores.T, torch.arange(half))
    return loss, float(near.detach().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("embedder", "reranker"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--embedder", type=Path, help="the trained embedder, for the reranker")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.role == "embedder":
        train_embedder(given.out, given.steps, given.threads)
    else:
        train_reranker(given.embedder, given.out, given.steps, given.threads)


if __name__ == "__main__":
    main()
