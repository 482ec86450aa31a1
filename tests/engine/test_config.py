"""The settings' numbers: each has bounds, and says so."""

from __future__ import annotations

import math
from dataclasses import fields
from functools import partial
from typing import Any

import pytest

from qvl.engine.config import EngineConfig, Limits, MediaConfig, ServerConfig
from qvl.engine.errors import ConfigError
from qvl.engine.jobs.settings import JobConfig
from qvl.engine.search.settings import AskConfig, VectorConfig
from qvl.ray_serve.config import BulkConfig, ClusterConfig, Replicas

ENGINE = partial(EngineConfig, embedder="x")
SERVER = partial(ServerConfig, engine=ENGINE())
SETTINGS = (ENGINE, Limits, MediaConfig, SERVER, JobConfig, AskConfig, VectorConfig, Replicas)
SETTINGS += (ClusterConfig, BulkConfig)


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        (settings, each.name, value)
        for settings in SETTINGS
        for each in fields(settings())
        if any(kind in str(each.type).split(" | ") for kind in ("int", "float"))
        for value in (-1, math.nan, math.inf)
    ],
)
def test_every_number_has_bounds(settings: Any, name: str, value: float) -> None:
    with pytest.raises(
        ConfigError, match=rf"^--{name.replace('_', '-')} must be (at least|above) .*, got {value}$"
    ):
        settings(**{name: value})


@pytest.mark.parametrize(
    ("settings", "given", "said"),
    [
        (ENGINE, {"tensor_parallel": 0}, "--tensor-parallel must be at least 1, got 0"),
        (ENGINE, {"max_batched_tokens": 0}, "--max-batched-tokens must be at least 1, got 0"),
        (ENGINE, {"embedder_memory": 0}, "--embedder-memory must be above 0 and at most 1, got 0"),
        (ENGINE, {"stall_seconds": math.inf}, "--stall-seconds must be at least 0 and finite, got inf"),
        (Limits, {"items": 0}, "--items must be at least 1, got 0"),
        (Limits, {"fetch_seconds": 0.0}, "--fetch-seconds must be above 0, got 0.0"),
        (MediaConfig, {"workers": -3}, "--workers must be at least 0, got -3"),
        (MediaConfig, {"max_pixels": 4096}, "--max-pixels must be 204800 to 8388608, got 4096"),
        (MediaConfig, {"min_pixels": 1843201}, "--max-pixels must be 1843201 to 8388608, got 1843200"),
        (SERVER, {"port": 70_000}, "--port must be at least 0 and at most 65535, got 70000"),
    ],
)
def test_a_number_out_of_its_bounds_is_told(settings: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**given)
    assert str(caught.value) == said


def test_0_is_a_number_where_it_has_a_meaning() -> None:
    ENGINE(answer_cache=0, stall_seconds=0, limits=Limits(images=0, videos=0, redirects=0))
    SERVER(port=0, drain_seconds=0)
    Replicas(max_replicas=0, replica_gpus=0, split_tokens=0, upscale_seconds=0, downscale_seconds=0)
    BulkConfig(ray_workers=0, worker_gpus=0)
