"""Autoscaling by tokens in progress: a pure function, and what Ray makes of it."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from qvl.ray_serve.config import Replicas
from qvl.ray_serve.policy import QUEUED, QueuedTokens, in_progress


@pytest.mark.parametrize("metrics", [None, {}])
def test_without_reports_none_is_wanted(metrics: dict[str, Any] | None) -> None:
    assert QueuedTokens(100)(SimpleNamespace(aggregated_metrics=metrics))[0] == 0


@pytest.mark.parametrize(("tokens", "replicas"), [(0, 0), (100, 1), (250, 2.5), (1e9, 1e7)])
def test_as_many_are_wanted_as_can_hold_the_tokens(tokens: float, replicas: float) -> None:
    assert QueuedTokens(100)(SimpleNamespace(aggregated_metrics={QUEUED: {"a": tokens}}))[0] == replicas


def test_what_replicas_report_is_summed() -> None:
    assert in_progress({}) == 0
    assert in_progress({"other": {"a": 5.0}}) == 0
    assert in_progress({QUEUED: {"a": 150.0, "b": 100.0}, "other": {"a": 9.0}}) == 250


def test_one_video_weighs_as_much_as_it_costs() -> None:
    policy = QueuedTokens(replica_tokens=1000)
    texts = SimpleNamespace(aggregated_metrics={QUEUED: {"a": 10 * 32.0}}, total_num_requests=10)
    video = SimpleNamespace(aggregated_metrics={QUEUED: {"a": 4128.0}}, total_num_requests=1)
    assert policy(texts)[0] < 1 < policy(video)[0]


def ray_policy(replica_tokens: int, **options: float) -> tuple[Any, Any]:
    """The policy as the controller runs it: pickled, with Ray's delays and bounds around it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, as it is imported
        from ray.serve.autoscaling_policy import _apply_autoscaling_config
        from ray.serve.config import AutoscalingConfig

        from qvl.ray_serve.deployment import autoscaling
    config = AutoscalingConfig(**autoscaling(Replicas(replica_tokens=replica_tokens, **options)))
    policy = config.policy.get_policy()(**config.policy.policy_kwargs)
    return _apply_autoscaling_config(policy), config


def context(config: Any, tokens: float, replicas: int, now: float, state: dict[str, Any]) -> Any:
    from ray.serve.config import AutoscalingContext

    return AutoscalingContext(
        deployment_id=None,
        deployment_name="d",
        app_name="a",
        current_num_replicas=replicas,
        target_num_replicas=replicas,
        running_replicas=[],
        total_num_requests=0,
        total_queued_requests=0,
        aggregated_metrics={QUEUED: {"r": tokens}},
        raw_metrics={},
        capacity_adjusted_min_replicas=config.min_replicas,
        capacity_adjusted_max_replicas=config.max_replicas,
        policy_state=state,
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=now,
        config=config,
    )


@pytest.mark.parametrize(("tokens", "before", "after"), [(0, 3, 1), (900, 1, 1), (1001, 1, 2), (2500, 1, 3)])
def test_within_ray_it_scales_up_and_down(tokens: float, before: int, after: int) -> None:
    policy, config = ray_policy(1000, min_replicas=1, max_replicas=4, upscale_seconds=0, downscale_seconds=0)
    assert policy(context(config, tokens, before, 0, {}))[0] == after


def test_within_ray_a_burst_must_last() -> None:
    policy, config = ray_policy(
        1000, min_replicas=1, max_replicas=4, upscale_seconds=60, downscale_seconds=60
    )
    replicas, state = policy(context(config, 9000, 1, 0, {}))
    assert replicas == 1
    assert policy(context(config, 0, 3, 0, state))[0] == 3
