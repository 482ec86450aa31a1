"""The oracle on each tiny model."""

from __future__ import annotations

import pytest

from tests.conftest import Pair
from tests.reference import Reference


@pytest.fixture(scope="session")
def embedder(pair: Pair) -> Reference:
    return Reference(pair.embedder)


@pytest.fixture(scope="session")
def reranker(pair: Pair) -> Reference:
    return Reference(pair.reranker)
