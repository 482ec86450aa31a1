"""Held-out recall of a trained pair: `python -m benchmarks.pair.evaluate EMBEDDER [RERANKER]`.

Each task has as many candidates as queries, no two of which a caption would confuse. The generator's seeds
are none that training draws from.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.pair import learner
from benchmarks.pair.judging import Miner, judged, words
from benchmarks.pair.pull import cut
from benchmarks.pair.train import collator
from qvl.engine.demo import tasks
from qvl.engine.demo.tasks import MATCH_COLOURS, MATCH_SHAPES, SCENES, Example, Item, alike
from qvl.engine.demo.world import Scene, edited, random_clip, random_page, random_scene

SEED = 990_000
TOP = 20
Scores = npt.NDArray[np.float32]
Shares = dict[str, float]


def examples(task: str, count: int) -> list[Example]:
    """`count` pairs whose documents all differ in what can be said of them."""
    rng = np.random.default_rng(SEED)
    if task == "page":
        pages = _distinct(lambda: random_page(rng), lambda each: frozenset(each.words), count)
        return [tasks.page(rng, each) for each in pages]
    if task == "video":
        clips = _distinct(lambda: random_clip(rng), lambda each: each.told(), count)
        return [tasks.video(rng, each) for each in clips]
    if task == "mixed":
        return _changes(rng, count)
    scenes = _distinct(lambda: random_scene(rng), lambda each: each, count)
    return [SCENES[task](rng, scene) for scene in scenes]


def recall(scores: Scores) -> float:
    return float((scores.argmax(1) == np.arange(len(scores))).mean())


def ndcg(order: npt.NDArray[np.int64]) -> float:
    """At 10, with one right document a query: its number."""
    places = (order[:, :10] == np.arange(len(order))[:, None]).argmax(1)
    found = (order[:, :10] == np.arange(len(order))[:, None]).any(1)
    return float((found / np.log2(places + 2)).mean())


def instructed(miner: Miner, count: int) -> Shares:
    """How often the first document has the query's colours (shapes), told so and told the other thing."""
    rng = np.random.default_rng(SEED + 1)
    shares: Shares = {}
    for kept, right, wrong in (
        ("colour", MATCH_COLOURS, MATCH_SHAPES),
        ("shape", MATCH_SHAPES, MATCH_COLOURS),
    ):
        asked = _distinct(lambda: random_scene(rng), lambda each: each, count)
        shown = [alike(rng, scene, kept) for scene in asked]
        documents = miner.vectors([Item(image=scene.draw(rng)) for scene in shown])
        pictures = [scene.draw(rng) for scene in asked]
        for name, told in (("right", right), ("wrong", wrong)):
            queries = miner.vectors([Item(image=each, instruction=told) for each in pictures])
            first = (queries @ documents.T).argmax(1).tolist()
            hits = [_set(a, kept) == _set(shown[f], kept) for a, f in zip(asked, first, strict=True)]
            shares[f"{kept}s, {name} instruction"] = float(np.mean(hits))
    return shares


def reranked(
    miner: Miner, reranker: Path, task: str, count: int, widths: tuple[int, ...]
) -> Iterator[Shares]:
    """First stage and second: the top 20 by the vectors' first dimensions, in the reranker's order."""
    pairs = examples(task, count)
    sides = miner.vectors([e.query for e in pairs]), miner.vectors([e.document for e in pairs])
    scores = {}
    for width in widths:
        queries, documents = (cut(side, width) for side in sides)
        scores[width] = (queries @ documents.T).topk(TOP, 1).indices.numpy()
    judge = _judge(reranker, pairs)
    known = [dict(zip(wanted, judge(at, wanted), strict=True)) for at, wanted in _united(scores.values())]
    for width, recalled in scores.items():
        order = np.stack(
            [row[np.argsort([-known[at][i] for i in row], kind="stable")] for at, row in enumerate(recalled)]
        )
        right = np.arange(len(order))
        yield {
            f"@{width} recall@20": float((recalled == right[:, None]).any(1).mean()),
            f"@{width} recall@1 before": float((recalled[:, 0] == right).mean()),
            f"@{width} recall@1 after": float((order[:, 0] == right).mean()),
            f"@{width} nDCG@10 before": ndcg(recalled),
            f"@{width} nDCG@10 after": ndcg(order),
        }


def _united(found: Iterable[npt.NDArray[np.int64]]) -> Iterator[tuple[int, list[int]]]:
    """Each query, and what is to be scored for it."""
    for at, rows in enumerate(zip(*found, strict=True)):
        yield at, sorted({int(i) for row in rows for i in row})


def _judge(reranker: Path, pairs: list[Example]) -> Callable[[int, list[int]], list[float]]:
    model, collate = learner.build(reranker, 0).eval(), collator(reranker, "reranker")
    vocabulary = words(reranker)

    def judge(query: int, documents: list[int]) -> list[float]:
        chosen = [(pairs[query].query, pairs[i].document) for i in documents]
        with torch.inference_mode():
            _, logits = judged(model, collate.pairs(chosen), vocabulary)
        return [float(each) for each in logits]

    return judge


def miner_of(embedder: Path) -> Miner:
    return Miner(learner.build(embedder, 0).eval(), collator(embedder, "embedder"))


def recalls(miner: Miner, task: str, count: int) -> dict[str, float]:
    pairs = examples(task, count)
    queries, documents = miner.vectors([e.query for e in pairs]), miner.vectors([e.document for e in pairs])
    cuts = {w: [cut(v, w) for v in (queries, documents)] for w in (128, 64, 32)}
    return {f"{task} @{w}": recall((q @ d.T).numpy()) for w, (q, d) in cuts.items()}


def _distinct(draw: Callable[[], Any], key: Callable[[Any], Any], count: int) -> list[Any]:
    found: dict[Any, Any] = {}
    while len(found) < count:
        each = draw()
        found.setdefault(key(each), each)
    return list(found.values())


def _changes(rng: np.random.Generator, count: int) -> list[Example]:
    """Four changes of each picture are among the candidates, so that the picture alone finds one in four."""
    made: list[Example] = []
    taken: set[Scene] = set()
    while len(made) < count:
        scene = random_scene(rng)
        family = dict(edited(scene, rng) for _ in range(12))
        if len(family) < 4 or taken & family.keys():
            continue
        chosen = list(family.items())[:4]
        taken |= {wanted for wanted, _ in chosen}
        made += [tasks.change(rng, scene, wanted, told) for wanted, told in chosen]
    return made[:count]


def _set(scene: Scene, attribute: str) -> frozenset[str]:
    return frozenset(getattr(thing, attribute) for thing in scene.things if thing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("embedder", type=Path)
    parser.add_argument("reranker", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--reranked", type=int, default=1000)
    parser.add_argument(
        "--tasks", nargs="*", default=["text to image", "image to text", "page", "video", "mixed"]
    )
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    miner = miner_of(given.embedder)
    for task in given.tasks:
        print(json.dumps(recalls(miner, task, given.count)), flush=True)
    print(json.dumps(instructed(miner, given.count)), flush=True)
    if given.reranker:
        for shares in reranked(miner, given.reranker, "text to image", given.reranked, (128, 16, 8)):
            print(json.dumps(shares), flush=True)


if __name__ == "__main__":
    main()
