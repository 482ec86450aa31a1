"""A task with the reference's answers to it: what every row is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.asks import Role
from benchmarks.contestants.huggingface import HuggingFace
from benchmarks.quality import answers
from benchmarks.quality.answers import Answers, Asked, Rankings
from benchmarks.quality.metrics import Scores
from benchmarks.quality.tasks import Task
from qvl.engine.config import MediaConfig
from qvl.engine.demo.tasks import Item

TOP = 20
"""Documents of a query that are reranked."""
_NONE = np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class Bench:
    task: Task
    asked: Asked
    grades: Scores
    ranked: Scores
    """Grades of the documents that are reranked, in their order."""
    truth: Answers


def bench(task: Task, models: Mapping[Role, HuggingFace], rankings: int) -> Bench:
    """Asks the reference, which is slow: one item after the other through the official processor.

    Reranked are the first `rankings` queries, each with the documents that the embedder puts first.
    """
    queries, documents, grades = list(task.queries.values()), list(task.corpus.values()), task.grades()
    asked, shown, logits, closeness = _NONE, _NONE, _NONE, grades
    if embedder := models.get("embedder"):
        asked, shown = (answers.reference_vectors(embedder, side) for side in (queries, documents))
        closeness = asked @ shown.T
    ranked: Scores = _NONE
    chosen: Rankings = []
    if reranker := models.get("reranker"):
        ranked, chosen = candidates(queries[:rankings], documents, closeness, grades)
        logits = answers.reference_logits(reranker, chosen)
    return Bench(task, Asked(queries, documents, chosen), grades, ranked, Answers(asked, shown, logits))


def candidates(
    queries: Sequence[Item], documents: Sequence[Item], closeness: Scores, grades: Scores
) -> tuple[Scores, Rankings]:
    """The nearest documents of each query, and their grades; in corpus order, which tells nothing."""
    depth = min(TOP, len(documents))
    order = np.sort(np.argsort(-closeness[: len(queries)], axis=1, kind="stable")[:, :depth], axis=1)
    rankings = [(query, [documents[i] for i in row]) for query, row in zip(queries, order, strict=True)]
    return np.take_along_axis(grades[: len(queries)], order, 1), rankings


def narrowed(asked: Asked, roles: Sequence[Role], *, half: bool) -> Asked:
    """What these roles are asked; with `half`, pictures of at most half the pixels that reach the model."""
    only = Asked(
        asked.queries if "embedder" in roles else (),
        asked.documents if "embedder" in roles else (),
        asked.rankings if "reranker" in roles else (),
    )
    if not half:
        return only
    limit = min(MediaConfig.max_pixels, answers.largest([*asked.queries, *asked.documents])) // 2

    def small(items: Sequence[Item]) -> list[Item]:
        return [answers.shrunk(each, limit) for each in items]

    pairs = [(answers.shrunk(query, limit), small(each)) for query, each in only.rankings]
    return Asked(small(only.queries), small(only.documents), pairs)
