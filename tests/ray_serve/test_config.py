"""Settings of a cluster: flat keys in, frozen dataclasses out, mistakes named."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from qvl.engine.config import EngineConfig, Limits, MediaConfig, ServerConfig
from qvl.engine.errors import ConfigError
from qvl.engine.jobs.settings import JobConfig
from qvl.ray_serve.config import BulkConfig, ClusterConfig, DeployConfig, Replicas, load

PAIR = {"embedder": "a", "reranker": "b"}


def deploy(engine: EngineConfig, **replicas: float) -> DeployConfig:
    cluster = ClusterConfig(replicas=Replicas(**replicas))
    return DeployConfig(server=ServerConfig(engine=engine), cluster=cluster)


def test_flat_keys_reach_the_dataclass_that_has_them() -> None:
    config = load(
        {
            **PAIR,
            "min-replicas": "2",
            "max_replicas": 5,
            "port": "9",
            "image_pixels": 7,
            "file_roots": "/a, /b",
        }
    )
    assert config.server.engine.embedder == "a"
    assert config.server.port == 9
    assert config.server.engine.limits.image_pixels == 7
    assert config.server.engine.media.file_roots == ("/a", "/b")
    assert (config.cluster.replicas.min_replicas, config.cluster.replicas.max_replicas) == (2, 5)


def test_the_bundled_pair_is_a_model() -> None:
    engine = load({"models": "bundled", "replica_gpus": 0.5}).of("both")[0].engine
    assert engine.models == ("bundled",)
    assert engine.embedder_memory == engine.reranker_memory == pytest.approx(0.225)  # it is two


def test_the_rerankers_own_numbers() -> None:
    config = load({**PAIR, "max_replicas": 2, "rerankers": {"max_replicas": 9}})
    assert config.of("embedder")[1].max_replicas == 2
    assert config.of("reranker")[1].max_replicas == 9


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"min_replica": 2}, "did you mean 'min_replicas'"),
        ({"min_replicas": "two"}, "min_replicas: Expected `int"),
        ({"min_replicas": 0}, "at least 1"),
        ({"min_replicas": 3, "max_replicas": 2}, "--max-replicas is 2, below the 3 that are always there"),
        ({"replicas": 8, "max_replicas": 4}, "--max-replicas is 4, below the 8 that are always there"),
        ({"replicas": 3, "rerankers": {"max_replicas": 2}}, "--max-replicas is 2, below the 3"),
        ({"replica_gpus": 1.5}, "a share of one GPU or a whole number"),
        ({"replica_gpus": 0.5, "tensor_parallel": 2}, "but --tensor-parallel says 2"),
        ({"replica_gpus": 2}, "but --tensor-parallel says 1"),
        ({"replica_tokens": 0}, "--replica-tokens"),
        ({"layout": "split"}, "layout"),
        ({"zzz": 1}, "unknown setting 'zzz'"),
        ({"rerankers": {"min_replicas": 0}}, "at least 1"),
        ({"rerankers": {"port": 3}}, "unknown setting 'port'"),
    ],
    ids=str,
)
def test_mistakes_are_named(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load({**PAIR, **wrong})


def test_each_pool_runs_its_own_model() -> None:
    config = deploy(EngineConfig(embedder="a", reranker="b"))
    assert config.of("both")[0].engine == config.server.engine
    assert config.of("embedder")[0].engine.reranker is None
    assert config.of("reranker")[0].engine.embedder is None


def test_an_index_is_searched_where_both_models_are() -> None:
    config = load({**PAIR, "index": "my.index"})
    config.of("both")
    with pytest.raises(ConfigError, match="index goes with layout together"):
        config.of("embedder")


def test_separate_pools_need_both_names() -> None:
    with pytest.raises(ConfigError, match="named"):
        deploy(EngineConfig(models=("a", "b"))).require_both()


@pytest.mark.parametrize(
    ("given", "embedders", "rerankers"),
    [
        ({}, (1, 1), (1, 1)),
        ({"replicas": 3}, (3, 3), (3, 3)),
        ({"replicas": 3, "max_replicas": 8}, (3, 8), (3, 8)),
        ({"replicas": 3, "min_replicas": 1, "max_replicas": 2}, (1, 2), (1, 2)),
        ({"replicas": 3, "rerankers": {"min_replicas": 1, "max_replicas": 2}}, (3, 3), (1, 2)),
        ({"replicas": 3, "rerankers": {"max_replicas": 4}}, (3, 3), (3, 4)),
    ],
)
def test_how_many_there_are(given: Any, embedders: tuple[int, int], rerankers: tuple[int, int]) -> None:
    config = load({**PAIR, **given})
    for pool, wanted in (("embedder", embedders), ("reranker", rerankers)):
        found = config.of(pool)[1]
        assert (found.min_replicas, found.max_replicas) == wanted
        assert config.most(pool) == embedders[1] + rerankers[1]
    assert config.most("both") == embedders[1]


@pytest.mark.parametrize(
    ("engine", "gpus", "shares"),
    [
        (EngineConfig(embedder="a"), 0.5, (0.45, 0.45)),
        (EngineConfig(embedder="a", reranker="b"), 0.5, (0.225, 0.225)),
        (EngineConfig(models=("a", "b")), 0.5, (0.225, 0.225)),
        (EngineConfig(embedder="a", embedder_memory=0.3), 0.5, (0.15, 0.45)),
        (EngineConfig(embedder="a"), 0.75, (0.675, 0.675)),
        (EngineConfig(embedder="a"), 1, (None, None)),
        (EngineConfig(embedder="a"), 0, (None, None)),
    ],
)
def test_replicas_on_one_card_divide_its_memory(
    engine: EngineConfig, gpus: float, shares: tuple[float | None, float | None]
) -> None:
    found = deploy(engine, replica_gpus=gpus).of("both")[0].engine
    assert (found.embedder_memory, found.reranker_memory) == (pytest.approx(shares) if shares[0] else shares)


def test_an_option_is_one_settings() -> None:
    """Their fields are flat options of one command: no two may have a name."""
    for together in (
        (EngineConfig, Limits, MediaConfig, JobConfig, BulkConfig),
        (ServerConfig, EngineConfig, Limits, MediaConfig, ClusterConfig, Replicas),
    ):
        nested = {settings.__name__ for settings in together}
        names = [each.name for settings in together for each in fields(settings) if each.type not in nested]
        assert sorted(set(names)) == sorted(names)
