"""An item's answer does not depend on its neighbours, on repeats, on order or on concurrency."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvl.engine import EmbedRequest, RerankRequest
from qvl.engine.protocol import Content
from tests.parity import cases
from tests.parity.conftest import Both, Run

pytestmark = pytest.mark.engine

COSINE, SCORE = 0.999999, 1e-5
NAMES = [
    "text",
    "nothing",
    "emoji",
    "900 words",
    "96 by 64",
    "image and text",
    "tiny frames",
    "ends in a letter",
]
POOL = st.lists(st.sampled_from(range(len(NAMES))), min_size=1, max_size=9)
QUERY = Content(texts=("a yellow ball over the sea, seen from the beach in the evening light",))
few = settings(max_examples=12)


class Alone:
    """Every item of the pool asked for by itself."""

    def __init__(self, both: Both, run: Run[Any]) -> None:
        self.both, self.run = both, run
        self.items = [cases.ALL[name]() for name in NAMES]
        self.vectors = np.concatenate([self.embed([place]) for place in range(len(NAMES))])
        self.scores = np.concatenate([self.rerank([place]) for place in range(len(NAMES))])

    def request(self, places: list[int]) -> EmbedRequest:
        return EmbedRequest(input=tuple(self.items[place] for place in places))

    def embed(self, places: list[int]) -> npt.NDArray[np.float32]:
        vectors: npt.NDArray[np.float32] = self.run(self.both.engine.embed(self.request(places))).vectors
        return vectors

    def rerank(self, places: list[int]) -> npt.NDArray[np.float64]:
        documents = tuple(self.items[place] for place in places)
        request = RerankRequest(query=QUERY, documents=documents)
        scores: npt.NDArray[np.float64] = self.run(self.both.engine.rerank(request)).scores
        return scores

    def same_vectors(self, places: list[int], vectors: npt.NDArray[np.float32]) -> None:
        assert float((vectors * self.vectors[places]).sum(1).min()) >= COSINE


@pytest.fixture(scope="module")
def alone(both: Both, run: Run[Any]) -> Alone:
    return Alone(both, run)


@few
@given(places=POOL)
def test_vectors_do_not_depend_on_neighbours(alone: Alone, places: list[int]) -> None:
    alone.same_vectors(places, alone.embed(places))


@few
@given(places=POOL)
def test_scores_do_not_depend_on_neighbours_nor_on_cached_prefixes(alone: Alone, places: list[int]) -> None:
    np.testing.assert_allclose(alone.rerank(places), alone.scores[places], rtol=0, atol=SCORE)


@few
@given(requests=st.lists(POOL, min_size=2, max_size=8))
def test_concurrent_requests_keep_their_own_order(alone: Alone, requests: list[list[int]]) -> None:
    async def together() -> list[Any]:
        return await asyncio.gather(*(alone.both.engine.embed(alone.request(places)) for places in requests))

    for places, result in zip(requests, alone.run(together()), strict=True):
        alone.same_vectors(places, result.vectors)


def test_both_models_at_once(alone: Alone) -> None:
    places = [*range(len(NAMES))]

    async def together() -> list[Any]:
        rerank = RerankRequest(query=QUERY, documents=tuple(alone.items))
        engine = alone.both.engine
        calls = [
            call for _ in range(4) for call in (engine.embed(alone.request(places)), engine.rerank(rerank))
        ]
        return await asyncio.gather(*calls)

    for place, result in enumerate(alone.run(together())):
        if place % 2:
            np.testing.assert_allclose(result.scores, alone.scores, rtol=0, atol=SCORE)
        else:
            alone.same_vectors(places, result.vectors)
