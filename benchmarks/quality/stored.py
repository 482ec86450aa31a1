"""Scores of vectors as an index keeps them: what a search engine computes on the rows that qvl gives out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.quality.metrics import Scores
from benchmarks.quality.variants import Stored
from qvl.engine.dialects.vectors import Dtype
from qvl.engine.response import convert, int8_scale


def scores(queries: Scores, documents: Scores, kept: Stored) -> Scores:
    """(queries, documents): the dot product of what the rows stand for; for bits, of their signs."""
    width = max(1, round(queries.shape[1] * kept.share))
    asked, shown = cut(queries, width), cut(documents, width)
    return _meant(asked, kept.query) @ _meant(shown, kept.document).T


def cut(rows: Scores, width: int) -> Scores:
    """A Matryoshka prefix, of length 1 again."""
    short = rows[:, :width]
    unit: Scores = short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12)
    return unit


def _meant(rows: Scores, dtype: Dtype) -> Scores:
    """What a row of this type stands for, as `qvl.engine.response` defines it."""
    made, width = convert(rows, dtype), rows.shape[1]
    match dtype:
        case "int8":
            return _float(made) / np.float32(int8_scale(width))
        case "uint8":
            return (_float(made) - 128) / np.float32(int8_scale(width))
        case "binary":
            return _signs((made.astype(np.int16) + 128).astype(np.uint8), width)
        case "ubinary":
            return _signs(made, width)
        case _:
            return _float(made)


def _signs(packed: npt.NDArray[np.uint8], width: int) -> Scores:
    """The product of two rows of signs is width - 2 · Hamming distance."""
    return _float(np.unpackbits(packed, axis=1)[:, :width]) * 2 - 1


def _float(values: npt.NDArray[np.generic]) -> Scores:
    return values.astype(np.float32)
