"""Whether an answer is right: its distance from the reference, and what its dtype allows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.contestants.base import Answer
from qvl.engine.check import floors

_LENGTH = {dtype: math.sqrt(2 - 2 * cosine) for dtype, cosine in floors.COSINE.items()} | {"float32": 5e-4}
"""Length of the difference of two unit vectors.

float32 leaves room for another resizer: torchvision's bicubic against Pillow's moves single numbers by up to
1.3e-4 (128 dimensions), while a wrong prompt, grid or pooling moves them by 1e-3 and more."""
_QUANTISED_LENGTH = math.sqrt(2 - 2 * floors.QUANTISED_COSINE)
_APART = 0.75
"""An answer's distance from its own reference, of that from another request's. Random weights answer alike to
long texts, so that what FP8 is allowed holds for a stranger's answer too; FP8's right ones came to 0.66."""
_SPREAD = 4.0
"""An error spread evenly over d numbers has its largest one below four times its length / √d."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The reference's answers to some items of one request, and their tokens."""

    places: tuple[int, ...]
    rows: Answer
    tokens: tuple[int, ...]


def allowed(dtype: str, dimensions: int | None) -> float:
    """Largest difference of one number of a vector, or with None of a score; `dtype` as in a row."""
    if dimensions is None:
        return floors.SCORE.get(dtype, floors.QUANTISED_SCORE)
    return _LENGTH.get(dtype, _QUANTISED_LENGTH) * min(1.0, _SPREAD / math.sqrt(dimensions))


def worst(answers: Sequence[Answer], known: Sequence[Truth]) -> float | None:
    """The largest error among the answers that can be checked; None when there is none."""
    return max((error(a, t) for a, t in zip(answers, known, strict=False)), default=None)


def wrong(answers: Sequence[Answer], known: Sequence[Truth], limit: float) -> Iterator[str]:
    """Why the answers of one row do not count; `known` are the truths of its requests, which differ."""
    most = worst(answers, known)
    if most is not None and not most <= limit:
        yield f"answers differ from the reference by {most:.1e}, {limit:.1e} is allowed"
        return
    for answer, own in zip(answers, known, strict=False):
        off, *others = (
            float(np.linalg.norm(answer[list(own.places)] - each.rows))
            for each in [own, *(each for each in known if each is not own)]
        )
        if off > _APART * min(others, default=math.inf):
            yield f"an answer is {off:.1e} from its reference and {min(others):.1e} from another request's"


def error(answer: Answer, truth: Truth) -> float:
    """Largest absolute difference; infinite when the shapes differ or a number is none."""
    if max(truth.places) >= len(answer) or answer[list(truth.places)].shape != truth.rows.shape:
        return math.inf
    most = float(np.abs(answer[list(truth.places)] - truth.rows).max())
    return most if math.isfinite(most) and np.isfinite(answer).all() else math.inf
