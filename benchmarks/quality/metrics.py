"""Numbers of a ranking and of its distance from the reference's. Scores are (queries, documents)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]
DEPTH = 10


def ndcg(scores: Scores, grades: Scores) -> float:
    """At 10, mean over queries that have a relevant document; equal scores keep the documents' order."""
    kept = grades.max(1) > 0
    order = np.argsort(-scores[kept], axis=1, kind="stable")[:, :DEPTH]
    gains = np.take_along_axis(grades[kept], order, 1)
    best = -np.sort(-grades[kept], axis=1)[:, :DEPTH]
    discount = 1 / np.log2(np.arange(2, DEPTH + 2))[: gains.shape[1]]
    return float(((gains @ discount) / (best @ discount)).mean())


def recall(scores: Scores, grades: Scores, depth: int) -> float:
    """Share of a query's relevant documents among its first `depth`, mean over queries that have any."""
    kept = grades.max(1) > 0
    order = np.argsort(-scores[kept], axis=1, kind="stable")[:, :depth]
    found = np.take_along_axis(grades[kept] > 0, order, 1).sum(1)
    return float((found / (grades[kept] > 0).sum(1)).mean())


def correlation(scores: Scores, reference: Scores) -> float:
    """Pearson's, of a query's scores with the reference's, mean over queries."""
    ours, theirs = (each - each.mean(1, keepdims=True) for each in (scores, reference))
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(1) / np.maximum(norms, 1e-30)).mean())


def least_cosine(vectors: Scores, reference: Scores) -> float:
    """Of unit rows; the worst."""
    return float((vectors * reference).sum(1).min())
