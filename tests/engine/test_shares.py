"""How much of a GPU each model takes, whatever was said of the other."""

from __future__ import annotations

import pytest

from qvl.engine.config import EngineConfig
from qvl.engine.errors import ConfigError
from qvl.engine.shares import share


@pytest.mark.parametrize(
    ("given", "beside", "shares"),
    [
        ({}, False, (0.9, 0.9)),
        ({}, True, (0.45, 0.45)),
        ({"embedder_memory": 0.6}, True, (0.6, 0.3)),
        ({"reranker_memory": 0.2}, True, (0.7, 0.2)),
        ({"embedder_memory": 0.6}, False, (0.6, 0.9)),
        ({"embedder_memory": 0.95, "reranker_memory": 0.04}, True, (0.95, 0.04)),
    ],
)
def test_two_models_stay_within_the_card(
    given: dict[str, float], beside: bool, shares: tuple[float, float]
) -> None:
    config = EngineConfig(models=("a", "b"), **given)
    found = [share(config, role, beside=beside) for role in ("embedder", "reranker")]
    assert found == pytest.approx(shares)


def test_a_share_that_leaves_too_little_is_refused_before_anything_is_loaded() -> None:
    EngineConfig(embedder="a", embedder_memory=0.9)
    with pytest.raises(ConfigError, match="leaves too little for the other"):
        EngineConfig(embedder="a", reranker="b", embedder_memory=0.9)
