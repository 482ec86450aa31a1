"""What the models answered, as the rows of a result."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qvl.engine.answers import Row
from qvl.engine.errors import BadRequest, QvlError


def width(dimensions: int | None, full: int) -> int:
    """Raises BadRequest."""
    if dimensions is not None and not 1 <= dimensions <= full:
        raise BadRequest(f"dimensions must be from 1 to {full}, got {dimensions}", param="dimensions")
    return dimensions or full


def matryoshka(rows: npt.NDArray[np.float32], width: int) -> npt.NDArray[np.float32]:
    """First `width` numbers of each unit row, a unit vector again; zero rows stay zero."""
    if width == rows.shape[1]:
        return rows
    cut = rows[:, :width]
    norms = np.linalg.norm(cut, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = cut / np.where(norms > 0, norms, np.float32(1))
    return unit


def rows(answers: list[Row | QvlError], width: int, fill: float) -> npt.NDArray[np.float32]:
    """(items, width); rows of failed items are `fill`."""
    made = np.full((len(answers), width), fill, dtype=np.float32)
    for row, answer in zip(made, answers, strict=True):
        if not isinstance(answer, QvlError):
            row[:] = answer
    return made


def errors(answers: list[Row | QvlError]) -> dict[int, QvlError]:
    return {i: each for i, each in enumerate(answers) if isinstance(each, QvlError)}
