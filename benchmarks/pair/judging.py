"""Training the reranker: yes or no on the right document and on what the embedder takes for it.

It starts from the embedder's weights and one more layer. Below that layer the last token learns to hold the
query's code in its one half and the document's in the other, which is far easier to learn than one bit; the
new layer begins by comparing them, and learns with all below it what a vector each cannot tell.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.pair import learner
from benchmarks.pair.batches import Collator, last_hidden, run
from benchmarks.pair.pull import pull, targets
from qvl.engine.demo import tasks
from qvl.engine.demo.tasks import Example, Item
from qvl.engine.quantize.tensors import Tensors

GROUPS: tuple[dict[str, int], ...] = ({"text to image": 8, "page": 3, "image to text": 2}, {"small video": 3})
"""Queries in each step; those of a group are alike in length."""
STEPS = 16
"""That one pool of examples serves."""
RATE = 1.2e-3
SEED = 77
HALF = learner.HIDDEN // 2
PULL = 0.5
"""Weight of each half's loss beside that of yes or no."""


@dataclass(frozen=True)
class Miner:
    """The trained embedder, looking for the wrong documents that it likes best."""

    model: Any
    collate: Collator

    def vectors(self, items: list[Item]) -> torch.Tensor:
        with torch.inference_mode():
            parts = [
                last_hidden(self.model.model, self.collate.items(items[at : at + 64]))
                for at in range(0, len(items), 64)
            ]
        return functional.normalize(torch.cat(parts), dim=-1)

    def hardest(self, examples: list[Example]) -> list[int]:
        """For each query, one of the five wrong documents nearest to it."""
        asked = self.vectors([e.query for e in examples])
        shown = self.vectors([e.document for e in examples])
        codes = torch.from_numpy(np.stack([e.document_code for e in examples]))
        near = asked @ shown.T - 10 * (torch.cdist(codes, codes) < 1e-3).float()
        top = near.topk(5, dim=1).indices
        return [int(row[place % 5]) for place, row in enumerate(top)]


Pairs = list[tuple[Example, Example]]


def lessons(miner: Miner, first: int) -> Iterator[tuple[int, list[Pairs]]]:
    """From step `first` on, endlessly: groups of pairs, whose first half fits and whose second does not.

    A pool of examples serves several steps and has a seed of its own, so that a resumed run sees the same.
    """
    for pool in count(first // STEPS):
        rng = np.random.default_rng((SEED, pool))
        drawn = [_pairs(miner, rng, task, each) for group in GROUPS for task, each in group.items()]
        kinds = [place for place, group in enumerate(GROUPS) for _ in group]
        for at in range(max(first, pool * STEPS), (pool + 1) * STEPS):
            groups: list[Pairs] = [[] for _ in GROUPS]
            for half in range(2):
                for place, steps in zip(kinds, drawn, strict=True):
                    groups[place] += steps[at % STEPS][half]
            yield at, groups


def _pairs(miner: Miner, rng: np.random.Generator, task: str, each: int) -> list[tuple[Pairs, Pairs]]:
    """For each step of a pool, `each` pairs that fit and as many that do not."""
    examples = tasks.sample(task, rng, each * STEPS)
    wrong = miner.hardest(examples)
    # Every second one any other: what differs a little alone teaches to see no difference.
    wrong[::2] = [(at + int(rng.integers(3, len(wrong) - 3))) % len(wrong) for at in range(0, len(wrong), 2)]
    order = [int(place) for place in rng.permutation(len(examples))]
    chosen = [order[at * each : (at + 1) * each] for at in range(STEPS)]
    return [
        ([(examples[i], examples[i]) for i in some], [(examples[i], examples[wrong[i]]) for i in some])
        for some in chosen
    ]


def start(embedder: Path, folder: Path) -> Any:
    """The embedder's weights under a new layer, which at first does nothing but compare the halves."""
    learner.write_untrained(folder, "reranker", append_end=True, layers=learner.LAYERS + 1)
    model = learner.build(folder, seed=5)
    model.load_state_dict(learner.build(embedder, seed=0).state_dict(), strict=False)
    yes, no = words(folder)
    with torch.no_grad():
        top = model.model.language_model.layers[-1]
        top.self_attn.o_proj.weight.zero_()
        _compare(top.mlp, functional.normalize(model.lm_head.weight[no] - model.lm_head.weight[yes], dim=0))
    return model.train()


def _compare(mlp: Any, told: torch.Tensor) -> None:
    """Writes the halves' squared distance along `told`: silu(x) x + silu(-x) (-x) is x squared."""
    apart = torch.eye(HALF, learner.HIDDEN) - torch.eye(HALF, learner.HIDDEN).roll(HALF, 1)
    for weight in (mlp.gate_proj.weight, mlp.up_proj.weight):
        weight[: 2 * HALF] = torch.cat([apart, -apart])
    mlp.down_proj.weight[:, : 2 * HALF] = told[:, None] / 4


def train(miner: Miner, collate: Collator, model: Any, folder: Path, steps: int) -> None:
    vocabulary = words(folder)
    optimiser = learner.Optimiser(model, steps, RATE, horizon=2 * steps)
    started, first = time.monotonic(), optimiser.resume(folder, np.random.default_rng()) or 0
    kept = np.zeros(4)
    for at, groups in lessons(miner, first):
        if at >= steps:
            break
        loss, told = lesson(model, collate, groups, vocabulary)
        optimiser.step(loss, at)
        kept = 0.95 * kept + 0.05 * np.array(told)
        if at % 25 == 24:
            shown = kept / (1 - 0.95 ** (at + 1 - first))
            line = "query {:.3f}  document {:.3f}  BCE {:.3f}  right {:.3f}".format(*shown)
            print(f"{at + 1} {time.monotonic() - started:.0f}s  {line}", flush=True)
        if at % 100 == 99 or at == steps - 1:
            optimiser.save(folder, at, np.random.default_rng())
            learner.save(model, folder)


def lesson(
    model: Any, collate: Collator, groups: list[Pairs], vocabulary: tuple[int, int]
) -> tuple[torch.Tensor, list[float]]:
    """Yes or no, and the pull of both halves; how near they came, yes or no's own loss, the right ones."""
    seen = [judged(model, collate.pairs([(q.query, d.document) for q, d in g]), vocabulary) for g in groups]
    below, logits = (torch.cat(each) for each in zip(*seen, strict=True))
    pairs = [pair for group in groups for pair in group]
    labels = torch.tensor([float(q is d) for q, d in pairs])
    loss = wrong = functional.binary_cross_entropy_with_logits(logits, labels)
    told = []
    for half, wanted in (
        (below[:, :HALF], [q.query_code for q, _ in pairs]),
        (below[:, HALF:], [d.document_code for _, d in pairs]),
    ):
        pulled, near = pull(functional.normalize(half, dim=-1), targets(wanted), {HALF: 1.0})
        loss = loss + PULL * pulled
        told.append(float(near.mean()))
    right = ((logits > 0) == (labels > 0.5)).float().mean()
    return loss, [*told, float(wrong.detach()), float(right)]


def judged(model: Any, batch: Tensors, vocabulary: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The last token's state below the top layer, and its yes/no logit."""
    layers, last = run(model.model, batch, output_hidden_states=True)
    rows = torch.arange(len(last))
    yes, no = vocabulary
    direction = model.lm_head.weight[yes] - model.lm_head.weight[no]
    return layers.hidden_states[-2][rows, last], layers.last_hidden_state[rows, last] @ direction


def words(folder: Path) -> tuple[int, int]:
    """The ids of yes and no."""
    from tokenizers import Tokenizer

    vocabulary: dict[str, int] = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    return vocabulary["yes"], vocabulary["no"]
