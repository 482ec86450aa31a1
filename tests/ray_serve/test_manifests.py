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

from qvl.ray_serve import environment, haproxy
from qvl.ray_serve.config import PREFIXES, load

ROOM = Path(__file__).parents[2] / "ray_serve"
IMAGE = "REGISTRY/qvl:TAG"


def manifests() -> dict[tuple[str, str], Any]:
    """By kind and name."""
    found = yaml.safe_load_all((ROOM / "kuberay/rayservice.yaml").read_text())
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def cluster() -> dict[str, Any]:
    found: dict[str, Any] = manifests()["RayService", "qvl"]["spec"]["rayClusterConfig"]
    return found


def groups() -> list[dict[str, Any]]:
    return [cluster()["headGroupSpec"], *cluster()["workerGroupSpecs"]]


def pods() -> list[dict[str, Any]]:
    return [group["template"] for group in groups()]


SERVED = {
    "deploy.yaml": lambda: yaml.safe_load((ROOM / "deploy.yaml").read_text()),
    "rayservice.yaml": lambda: yaml.safe_load(manifests()["RayService", "qvl"]["spec"]["serveConfigV2"]),
}

BRINGS = {"deploy.yaml": "deploy.yaml", "rayservice.yaml": "kuberay/Dockerfile"}
"""What names the path of qvl-haproxy."""


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
    assert found.http_options.host == "0.0.0.0"
    given = found.controller_options.runtime_env["env_vars"]
    [binary] = re.findall(rf"{haproxy.BINARY}[:=] ?(\S+)", (ROOM / BRINGS[name]).read_text())
    environment.require({**given, haproxy.BINARY: binary})
    for each in found.applications:
        assert [each.name] == [deployment.name for deployment in each.deployments]
        module, _, builder = each.import_path.partition(":")
        assert callable(getattr(import_module(module), builder))
        config = load(each.args)
        config.require_both()
        # As `qvl serve --ray` tells HAProxy.
        assert given.items() <= environment.variables(config).items()


def test_pods_have_what_they_mount() -> None:
    secret = manifests()["Secret", "qvl-keys"]
    for pod in pods():
        [container] = pod["spec"]["containers"]
        assert container["image"] == IMAGE
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
        assert {each["name"] for each in container["volumeMounts"]} == set(volumes)
        keys = volumes["keys"]["secret"]
        assert keys["secretName"] == secret["metadata"]["name"]
        # All of its items are files: a new one is how keys are rotated.
        [folder] = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "keys"]
        read = SERVED["rayservice.yaml"]()["applications"][0]["args"]["api_key_file"]
        assert read in {f"{folder}/{item}" for item in secret["stringData"]}
        assert "items" not in keys


def admitted(policy: str) -> list[tuple[Any, set[int]]]:
    """From where, to which ports; none: all."""
    return [
        (
            rule.get("from"),
            {
                port
                for each in rule.get("ports", [])
                for port in range(each["port"], each.get("endPort", each["port"]) + 1)
            },
        )
        for rule in manifests()["NetworkPolicy", policy]["spec"]["ingress"]
    ]


def test_the_budget_and_the_policies_are_about_these_pods() -> None:
    found = manifests()
    labels = pods()[1]["metadata"]["labels"]
    for kind, name, selector in (
        ("PodDisruptionBudget", "qvl-workers", "selector"),
        ("NetworkPolicy", "qvl", "podSelector"),
    ):
        wanted = found[kind, name]["spec"][selector]["matchLabels"]
        assert labels.items() <= {**wanted}.items(), kind
    assert [ports for origin, ports in admitted("qvl") if origin is None] == [{8080}]


def test_redis_lets_in_ray_alone_and_asks_for_its_password() -> None:
    """Who writes to it tells Ray what to run."""
    found = manifests()
    options = cluster()["gcsFaultToleranceOptions"]
    service = found["Service", options["redisAddress"].partition(":")[0]]
    redis = found["StatefulSet", "qvl-redis"]["spec"]["template"]
    assert service["spec"]["selector"] == redis["metadata"]["labels"]
    assert (
        found["NetworkPolicy", "qvl-redis"]["spec"]["podSelector"]["matchLabels"]
        == redis["metadata"]["labels"]
    )
    assert admitted("qvl-redis") == [([{"podSelector": {"matchLabels": {"app": "qvl"}}}], {6379})]
    assert all(pod["metadata"]["labels"] == {"app": "qvl"} for pod in pods())
    [container] = redis["spec"]["containers"]
    [password] = container["env"]
    assert f"--requirepass $({password['name']})" in " ".join(container["args"])
    assert options["redisPassword"]["valueFrom"] == password["valueFrom"]
    wanted = password["valueFrom"]["secretKeyRef"]
    assert wanted["key"] in found["Secret", wanted["name"]]["stringData"]


def test_nothing_else_takes_the_ports_of_the_service_and_the_replicas() -> None:
    """KubeRay gives Ray's metrics 8080 unless it is told otherwise."""
    served = SERVED["rayservice.yaml"]()["http_options"]["port"]
    monitored = set().union(*(ports for origin, ports in admitted("qvl") if origin is not None))
    for group in groups():
        ports = {
            each["name"]: each["containerPort"]
            for each in group["template"]["spec"]["containers"][0]["ports"]
        }
        assert int(group["rayStartParams"]["metrics-export-port"]) == ports["metrics"] != served
        assert len({*ports.values()}) == len(ports)
        assert {ports[name] for name in ports if name == "metrics" or "replica" in name} <= monitored


def test_probes_have_the_time_that_their_commands_take() -> None:
    for pod in pods():
        for container in pod["spec"]["containers"]:
            for probe in (
                each for name, each in container.items() if name.endswith("Probe") and "exec" in each
            ):
                assert probe["timeoutSeconds"] >= 10


def test_no_pod_gets_variables_from_services() -> None:
    """Those of a service `qvl` would be options of ours."""
    every = [*pods(), manifests()["StatefulSet", "qvl-redis"]["spec"]["template"]]
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in every)


def test_a_worker_outlives_its_longest_drain() -> None:
    config = load(SERVED["rayservice.yaml"]()["applications"][0]["args"])
    longest = config.server.request_seconds + config.cluster.drain_window
    worker = pods()[1]["spec"]
    variables = {each["name"]: each["value"] for each in worker["containers"][0]["env"]}
    drain = float(variables["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
    assert longest < drain < worker["terminationGracePeriodSeconds"]


def test_replicas_decode_with_the_cores_that_their_pod_asks_for() -> None:
    config = load(SERVED["rayservice.yaml"]()["applications"][0]["args"])
    part = config.cluster.replicas.replica_gpus
    resources = pods()[1]["spec"]["containers"][0]["resources"]
    assert part and "cpu" not in resources["limits"]
    assert config.server.engine.media.workers / part == int(resources["requests"]["cpu"])


def test_ray_reads_how_long_an_evicted_node_drains() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray._private import ray_constants
    assert hasattr(ray_constants, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S")


def test_the_image_has_the_whole_house() -> None:
    copied = (ROOM / "kuberay/Dockerfile").read_text()
    for room in ("engine", "kernels", "ray_serve"):
        assert f"COPY {room} {room}" in copied
    extras = re.search(r"'\.\[(.*?)\]'", copied)
    assert extras
    assert {*extras[1].split(",")} == {"gpu", "ray", "search", "trace"}
