"""Train the demo's pair from nothing.

    python -m benchmarks.pair.train embedder --out work/embedder
    python -m benchmarks.pair.train reranker --out work/reranker --embedder work/embedder

The same arguments give the same weights on one machine. A stopped run goes on where it was saved last.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.pair import judging, learner, sight
from benchmarks.pair.batches import Collator, last_hidden
from benchmarks.pair.pull import pull, targets
from qvl.engine.checkpoint import Role, of_role
from qvl.engine.demo import tasks
from qvl.engine.demo.codes import Code
from qvl.engine.demo.tasks import Example, Item
from qvl.engine.text_side import load_text_side

SEED = 2026
MIX = {"text to image": 10, "page": 8, "small video": 4, "mixed": 8, "colours": 4, "shapes": 4, "video": 3}
"""Examples in each step. All in every step: steps of one task alone pull all vectors to and fro, and learn
almost nothing."""
LATER = {"page": (300, 14), "small video": (500, 24)}
"""From which step on how many further documents: these are learned last."""
SIGHT_STEPS = 500
HORIZON = 2000
SAVED_EVERY = 100
MATRYOSHKA = {128: 1.0, 64: 0.5, 32: 0.25}


def collator(folder: Path, role: Role) -> Collator:
    checkpoint = of_role(role, str(folder))
    return Collator(load_text_side(checkpoint), checkpoint.config)


def train_embedder(folder: Path, steps: int, threads: int, until: int | None = None) -> None:
    """`until` stops early; the schedule is that of `steps`."""
    torch.set_num_threads(threads)
    learner.write_untrained(folder, "embedder", append_end=True)
    model = learner.build(folder, SEED).train()
    collate, optimiser = collator(folder, "embedder"), learner.Optimiser(model, steps, horizon=HORIZON)
    rng = np.random.default_rng(SEED)
    started, first = time.monotonic(), optimiser.resume(folder, rng)
    if first is None:
        sight.train(model, SIGHT_STEPS, SEED)
        optimiser.save(folder, -1, rng)
        first = 0
    for at in range(first, until or steps):
        loss, nears = embedder_loss(model, collate, coded(rng, at))
        optimiser.step(loss, at)
        if at % 20 == 19:
            told = "  ".join(f"{name} {near:.3f}" for name, near in nears.items())
            print(f"{at + 1} {time.monotonic() - started:.0f}s  {told}", flush=True)
        if at % SAVED_EVERY == SAVED_EVERY - 1 or at == steps - 1:
            optimiser.save(folder, at, rng)
            learner.save(model, folder)


Coded = list[tuple[Item, Code]]


def coded(rng: np.random.Generator, at: int) -> dict[str, Coded]:
    """Items and what they should be taken for. Those of a group are alike in length, or in how they begin."""
    drawn = {task: tasks.sample(task, rng, count) for task, count in MIX.items()}
    later = {task: tasks.sample(task, rng, count) for task, (start, count) in LATER.items() if at >= start}

    def queries(*names: str) -> Coded:
        return [(each.query, each.query_code) for name in names for each in drawn.get(name, ())]

    def documents(found: dict[str, list[Example]], *names: str) -> Coded:
        return [(each.document, each.document_code) for name in names for each in found.get(name, ())]

    groups = {
        "texts": queries("text to image", "page", "small video"),
        "pictures": documents(drawn, "text to image", "page") + documents(later, "page"),
        "changes": queries("mixed", "colours", "shapes"),
        "videos": documents(drawn, "video"),
        "clips": documents(later, "small video"),
    }
    return {name: group for name, group in groups.items() if group}


def train_reranker(embedder: Path, folder: Path, steps: int, threads: int) -> None:
    torch.set_num_threads(threads)
    miner = judging.Miner(learner.build(embedder, SEED).eval(), collator(embedder, "embedder"))
    model = judging.start(embedder, folder)
    judging.train(miner, collator(folder, "reranker"), model, folder, steps)


def embedder_loss(
    model: Any, collate: Collator, groups: dict[str, Coded]
) -> tuple[torch.Tensor, dict[str, float]]:
    """The pull on each group's vectors together, and how near each group came."""
    hidden = [last_hidden(model.model, collate.items([i for i, _ in group])) for group in groups.values()]
    vectors = functional.normalize(torch.cat(hidden), dim=-1)
    target = targets([code for group in groups.values() for _, code in group])
    loss, near = pull(vectors, target, MATRYOSHKA)
    parts = torch.split(near, [len(group) for group in groups.values()])
    return loss, {name: float(part.mean()) for name, part in zip(groups, parts, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("embedder", "reranker"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--embedder", type=Path, help="the trained embedder, for the reranker")
    parser.add_argument("--steps", type=int, help="1300 for the embedder, 2000 for the reranker")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.role == "embedder":
        train_embedder(given.out, given.steps or 1300, given.threads)
    else:
        train_reranker(given.embedder, given.out, given.steps or 2000, given.threads)


if __name__ == "__main__":
    main()
