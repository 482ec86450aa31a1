"""The oracle on each tiny model."""

from __future__ import annotations

import pytest

from qvl.engine.check.reference import Reference
from tests.conftest import Pair


@pytest.fixture(scope="session")
def embedder(pair: Pair) -> Reference:
    return Reference(pair.embedder)


@pytest.fixture(scope="session")
def reranker(pair: Pair) -> Reference:
    return Reference(pair.reranker)
