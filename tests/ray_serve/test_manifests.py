"""What is deployed by file: read by Ray's own schema, settings that exist, references that lead somewhere.

The Kubernetes objects were held against KubeRay 1.6's and Kubernetes 1.36's schemas when they were written.
"""

from __future__ import annotations

import re
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from qvl.ray_serve.config import PREFIXES, load

ROOM = Path(__file__).parents[2] / "ray_serve"
IMAGE = "REGISTRY/qvl:TAG"


def manifests() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all((ROOM / "kuberay/rayservice.yaml").read_text())}


def pods() -> list[dict[str, Any]]:
    cluster = manifests()["RayService"]["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]


SERVED = {
    "deploy.yaml": lambda: yaml.safe_load((ROOM / "deploy.yaml").read_text()),
    "rayservice.yaml": lambda: yaml.safe_load(manifests()["RayService"]["spec"]["serveConfigV2"]),
}


@pytest.mark.parametrize("name", SERVED)
def test_serve_takes_the_applications(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, as it is imported
        from ray.serve.schema import ServeDeploySchema
    found = ServeDeploySchema.model_validate(SERVED[name]())
    assert {each.name: each.route_prefix for each in found.applications} == {
        "qvl-embedder": PREFIXES["embedder"],
        "qvl-reranker": PREFIXES["reranker"],
        "qvl-gateway": "/",
    }
    for each in found.applications:
        module, _, builder = each.import_path.partition(":")
        assert callable(getattr(import_module(module), builder))
        config = load(each.args)
        assert config.server.port == found.http_options.port
        assert config.server.host == found.http_options.host == "0.0.0.0"
        config.require_both()


def test_pods_run_in_haproxy_mode_and_have_what_they_mount() -> None:
    secret = manifests()["Secret"]
    for pod in pods():
        [container] = pod["spec"]["containers"]
        environment = {each["name"]: each.get("value") for each in container["env"]}
        assert (
            environment["RAY_SERVE_ENABLE_HA_PROXY"] == environment["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
        )
        assert container["image"] == IMAGE
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
        assert {each["name"] for each in container["volumeMounts"]} == set(volumes)
        keys = volumes["keys"]["secret"]
        assert keys["secretName"] == secret["metadata"]["name"]
        assert {each["key"] for each in keys["items"]} <= secret["stringData"].keys()


def test_the_budget_and_the_policy_are_about_these_pods() -> None:
    found = manifests()
    labels = pods()[1]["metadata"]["labels"]
    for kind, name in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        wanted = found[kind]["spec"][name]["matchLabels"]
        assert labels.items() <= {**wanted}.items(), kind
    address = found["RayService"]["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]["redisAddress"]
    assert address.partition(":")[0] == found["Service"]["metadata"]["name"]


def test_a_worker_outlives_its_longest_drain() -> None:
    config = load(SERVED["rayservice.yaml"]()["applications"][0]["args"])
    drain = config.server.request_seconds + config.cluster.drain_window
    assert pods()[1]["spec"]["terminationGracePeriodSeconds"] > drain


def test_the_image_has_the_whole_house() -> None:
    copied = (ROOM / "kuberay/Dockerfile").read_text()
    for room in ("engine", "kernels", "ray_serve"):
        assert f"COPY {room} {room}" in copied
    extras = re.search(r"'\.\[(.*?)\]'", copied)
    assert extras
    assert {*extras[1].split(",")} == {"gpu", "ray", "search", "trace"}
