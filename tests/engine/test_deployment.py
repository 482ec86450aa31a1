"""The plain Deployment: a command that `qvl` takes, probes that answer, time to end, references that lead on.

`make manifests` holds it to Kubernetes' own schema.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from qvl.engine.api.auth import OPEN_PATHS, load_keys
from qvl.engine.server import _END_SECONDS
from tests.engine.conftest import Served

FILE = Path(__file__).parents[2] / "ray_serve/kuberay/deployment.yaml"
MIB = 1 << 20


@pytest.fixture
def found() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(FILE.read_text())}


@pytest.fixture
def pod(found: dict[str, Any]) -> Any:
    return found["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture
def container(pod: Any) -> Any:
    [one] = pod["containers"]
    return one


def command(container: Any) -> list[str]:
    program, task, *arguments = [*container["command"], *container["args"]]
    assert (program, task) == ("qvl", "serve")
    return arguments


def test_the_command_is_taken_and_its_keys_are(
    served: Served, found: dict[str, Any], pod: Any, container: Any, tmp_path: Path
) -> None:
    config = served(*command(container))
    assert config.host == "0.0.0.0"
    assert len(config.engine.models) == 2
    [port] = container["ports"]
    [offered] = found["Service"]["spec"]["ports"]
    assert config.port == port["containerPort"] == offered["port"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    folders = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert folders.keys() == volumes.keys()
    assert volumes["keys"]["secret"]["secretName"] == found["Secret"]["metadata"]["name"]
    [(item, text)] = found["Secret"]["stringData"].items()
    assert config.api_key_file == f"{folders['keys']}/{item}"
    (tmp_path / item).write_text(text)
    assert load_keys(replace(config, api_key_file=str(tmp_path / item)))


def test_a_pod_outlives_its_longest_drain(served: Served, pod: Any, container: Any) -> None:
    config = served(*command(container))
    assert config.drain_seconds > config.request_seconds
    # Proxies have heard of the pod's end by then.
    assert config.linger_seconds >= 5
    seconds = config.linger_seconds + config.drain_seconds + _END_SECONDS
    assert pod["terminationGracePeriodSeconds"] > seconds


def test_probes_ask_what_needs_no_key(found: dict[str, Any], container: Any) -> None:
    probes = {name: each["httpGet"] for name, each in container.items() if name.endswith("Probe")}
    assert len(probes) == 3
    assert {each["path"] for each in probes.values()} <= OPEN_PATHS
    assert {each["port"] for each in probes.values()} == {each["name"] for each in container["ports"]}
    start = container["startupProbe"]
    loading = start["periodSeconds"] * start["failureThreshold"]
    assert found["Deployment"]["spec"]["progressDeadlineSeconds"] > loading


def test_there_is_room_for_pixels_and_what_is_kept(served: Served, pod: Any, container: Any) -> None:
    config = served(*command(container))
    volumes = {each["name"]: each.get("emptyDir", {}) for each in pod["volumes"]}
    folders = {each["mountPath"]: volumes[each["name"]] for each in container["volumeMounts"]}
    shared = folders["/dev/shm"]
    assert shared["medium"] == "Memory"
    assert int(shared["sizeLimit"].removesuffix("Gi")) * 1024 * MIB >= 2 * config.engine.media.media_memory
    for each in container["env"]:
        assert any(Path(each["value"]).is_relative_to(folder) for folder in folders), each


def test_it_decodes_with_the_cores_that_it_asks_for(served: Served, container: Any) -> None:
    """Without a limit it would see all of the node's."""
    assert "cpu" not in container["resources"]["limits"]
    assert served(*command(container)).engine.media.workers == int(container["resources"]["requests"]["cpu"])


def test_the_service_leads_to_its_pods_and_the_pods_are_its_own(found: dict[str, Any], pod: Any) -> None:
    spec = found["Deployment"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert labels == spec["selector"]["matchLabels"] == found["Service"]["spec"]["selector"]
    # Those of a service `qvl` would be options of ours.
    assert pod["enableServiceLinks"] is False
    beside = list(yaml.safe_load_all((FILE.parent / "rayservice.yaml").read_text()))
    names = {(each["kind"], each["metadata"]["name"]) for each in beside}
    assert names.isdisjoint((kind, each["metadata"]["name"]) for kind, each in found.items())
    assert pod["containers"][0]["image"] in (FILE.parent / "rayservice.yaml").read_text()
