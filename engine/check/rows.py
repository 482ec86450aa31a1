"""Both answers to each input side by side, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from qvl.engine.check import floors
from qvl.engine.checkpoint import Role
from qvl.engine.protocol import EmbedResult, RerankResult


@dataclass(frozen=True)
class Told:
    """The authors' code's answers to one request."""

    ids: list[list[int]]
    rows: npt.NDArray[np.float32] | None = None
    """A vector or a logit for each prompt; None: the ids alone were asked."""


@dataclass(frozen=True)
class Made:
    """The engine's."""

    ids: list[list[int]]
    result: EmbedResult | RerankResult | None = None


@dataclass(frozen=True)
class Model:
    """One that is checked, and how far its answers may be from the authors'."""

    name: str
    role: Role
    dtype: str
    quantised: bool

    @property
    def floor(self) -> float:
        """A cosine at least, or of scores the largest difference."""
        if self.role == "embedder":
            cosine = floors.QUANTISED_COSINE
            return cosine if self.quantised else floors.COSINE.get(self.dtype, cosine)
        score = floors.QUANTISED_SCORE
        return score if self.quantised else floors.SCORE.get(self.dtype, score)

    def __str__(self) -> str:
        bits = f"{self.dtype}, quantised" if self.quantised else self.dtype
        wanted = f"cosines of at least {self.floor:g}"
        if self.role == "reranker":
            wanted = f"scores within {self.floor:g} (the authors', ours, before the sigmoid)"
        return f"{self.name}, {self.role} in {bits}: equal ids, {wanted}"


@dataclass(frozen=True)
class Row:
    name: str
    tokens: int
    answers: str
    wrong: str
    """Empty where nothing is."""

    def __str__(self) -> str:
        verdict = f"DIFFERS: {self.wrong}" if self.wrong else "ok"
        return f"  {self.name:32}{self.tokens:6} tokens  {self.answers:31}  {verdict}"


def rows(model: Model, names: Sequence[str], told: Told, made: Made) -> Iterator[Row]:
    for place, (name, theirs, ours) in enumerate(zip(names, told.ids, made.ids, strict=True)):
        if made.result and place in made.result.errors:
            yield Row(name, len(theirs), "", f"it is refused: {made.result.errors[place].message}")
            continue
        answers, far = "ids alone", ""
        if told.rows is not None and made.result:
            answers, far = _compared(model, told.rows[place], made.result, place)
        yield Row(name, len(theirs), answers, _first_difference(theirs, ours) or far)


def _first_difference(theirs: list[int], ours: list[int]) -> str:
    for place, (one, other) in enumerate(zip_longest(theirs, ours), 1):
        if one != other:
            here = "none" if other is None else other
            return f"token {place} is {here}, the authors' {'none' if one is None else one}"
    return ""


def _compared(
    model: Model, theirs: npt.NDArray[np.float32], result: EmbedResult | RerankResult, place: int
) -> tuple[str, str]:
    """The answers in words, and what is wrong with ours. What is no number is near nothing."""
    if isinstance(result, EmbedResult):
        found = cosine(theirs, result.vectors[place])
        return f"{found:.7f}", "" if found >= model.floor else f"the cosine is below {model.floor:g}"
    logits = float(theirs), float(result.logits[place])
    scores = [1 / (1 + math.exp(-each)) for each in logits]
    told = "{:.4f} {:.4f} ({:.2f} {:.2f})".format(*scores, *logits)
    # As much as moves a score of 1/2 by the floor; near 0 and 1, where all scores look alike, in proportion.
    most = 4 * model.floor * max(1.0, abs(logits[0]))
    return told, "" if abs(logits[1] - logits[0]) <= most else f"more than {model.floor:g} of a score apart"


def cosine(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """In float64: float32 rounds away what its floor asks for."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) or np.nan))
