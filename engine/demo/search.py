"""The demo's two stages, as a search service runs them: recall by vectors, then rerank the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qvl.engine.client import Client
from qvl.engine.client.calls import Vectors
from qvl.engine.demo.corpus import Asked, Entry

RECALLED = 8


@dataclass(frozen=True)
class Hit:
    entry: int
    cosine: float
    score: float


@dataclass(frozen=True)
class Found:
    """The same entries twice: by their vectors, and in the reranker's order. The reranker was trained on
    questions in words; where a picture is asked with, its order is the vectors'."""

    asked: Asked
    recalled: tuple[Hit, ...]
    ranked: tuple[Hit, ...]

    def place(self, hit: Hit) -> int:
        """Where the vectors had it."""
        return self.recalled.index(hit)

    def lifted(self) -> bool:
        """The reranker put the right one first, and the vectors had not."""
        return self.first(self.ranked) and not self.first(self.recalled)

    def first(self, hits: Sequence[Hit]) -> bool:
        return hits[0].entry == self.asked.answer


@dataclass(frozen=True)
class Share:
    """How many of a kind of question have the right answer first."""

    kind: str
    questions: int
    before: int
    after: int


def recall(client: Client, found: Vectors, asked: Sequence[Asked]) -> list[list[tuple[int, float]]]:
    """(entry, cosine) of the nearest, for each question."""
    rows = []
    for instruction in dict.fromkeys(each.instruction for each in asked):
        alike = [(at, each) for at, each in enumerate(asked) if each.instruction == instruction]
        wanted = client.embed([each.item for _, each in alike], instruction=instruction)
        rows += [(at, row) for (at, _), row in zip(alike, wanted @ found.T, strict=True)]
    return [
        [(int(i), float(row[i])) for i in np.argsort(-row, kind="stable")[:RECALLED]]
        for _, row in sorted(rows, key=lambda each: each[0])
    ]


def rerank(client: Client, entries: Sequence[Entry], asked: Asked, nearest: list[tuple[int, float]]) -> Found:
    documents = [entries[at].item for at, _ in nearest]
    scores = client.rerank(asked.item, documents, instruction=asked.instruction)
    by_place = {each.index: each.score for each in scores}
    recalled = tuple(Hit(at, cosine, by_place[place]) for place, (at, cosine) in enumerate(nearest))
    if asked.picture is not None:
        return Found(asked, recalled, recalled)
    return Found(asked, recalled, tuple(sorted(recalled, key=lambda hit: -hit.score)))


def shares(found: Sequence[Found]) -> list[Share]:
    known = [each for each in found if each.asked.answer is not None]
    made = []
    for kind in dict.fromkeys(each.asked.kind for each in known):
        alike = [each for each in known if each.asked.kind == kind]
        before = sum(each.first(each.recalled) for each in alike)
        made.append(Share(kind, len(alike), before, sum(each.first(each.ranked) for each in alike)))
    return made


def telling(found: Sequence[Found]) -> list[Found]:
    """A few to show: of each kind one, the first that reranking put right if there is any."""
    kinds = dict.fromkeys(each.asked.kind for each in found)
    alike = {kind: [each for each in found if each.asked.kind == kind] for kind in kinds}
    return [next((each for each in those if each.lifted()), those[0]) for those in alike.values()]
