"""Ray's own commands: `serve deploy` of the file that is there."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from qvl.ray_serve import environment, haproxy
from tests import web
from tests.ray_serve.cluster import KEY, KEYED, START_SECONDS, STOP_SECONDS, Cluster, title
from tests.ray_serve.front import free_port

pytestmark = pytest.mark.engine

FILE = Path(__file__).parents[2] / "ray_serve" / "deploy.yaml"
BIN = Path(sys.executable).parent


class Node(Cluster):
    """A cluster that `ray start` began, and which knows nothing of us."""

    READY = b"Ray runtime started"

    def __init__(self, log: Path) -> None:
        super().__init__([], log)
        self.environment["RAY_AUTH_MODE"] = "token"
        self.dashboard = free_port()
        self.ports = {
            "RAY_SERVE_HAPROXY_STATS_PORT": str(self.stats),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            haproxy.BINARY: str(BIN / "qvl-haproxy"),
        }
        options = {
            "port": free_port(),
            "dashboard-port": self.dashboard,
            "dashboard-agent-listen-port": free_port(),
            "ray-client-server-port": free_port(),
            "num-cpus": 4,
        }
        self._command = [str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats"]
        self._command += [f"--{name}={value}" for name, value in options.items()]

    def serve(self, *arguments: str) -> str:
        """A command of Ray's; what it says."""
        command = [str(BIN / "serve"), *arguments, "-a", f"http://127.0.0.1:{self.dashboard}"]
        done = subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True, timeout=900
        )
        return done.stdout

    def deploy(self, config: dict[str, Any], folder: Path) -> None:
        file = folder / "deploy.yaml"
        file.write_text(yaml.safe_dump(config))
        self.serve("deploy", str(file))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("node") / "log") as running:
        yield running


def deployed(node: Node, release: str) -> dict[str, Any]:
    """What the file says, with stand-ins for the models and ports that are free here."""
    config: dict[str, Any] = yaml.safe_load(FILE.read_text())
    config["http_options"] |= {"host": "127.0.0.1", "port": node.port}
    config["controller_options"]["runtime_env"]["env_vars"] |= node.ports
    for application in config["applications"]:
        application["args"] |= {"drain_window": 10}  # a machine that is busy is slow to tell HAProxy
        application["args"] |= {"replica_gpus": 0, "replica_cpus": 0.1, "api_key": KEY, "split_tokens": 800}
        application["args"]["rerankers"] |= {"replica_gpus": 0, "replica_cpus": 0.1, "split_tokens": 800}
        application["runtime_env"] = {"env_vars": {"RELEASE": release}}
        name = application["import_path"].rpartition(":")[2]
        if name != "front":
            application["import_path"] = f"tests.ray_serve.serve_fakes:{name}"
    return config


def status(url: str) -> int:
    """Of a small request; 0 when its connection was lost."""
    try:
        return web.post(f"{url}/v1/embeddings", json={"input": "a"}, headers=KEYED, timeout=60).status_code
    except httpx.TransportError:
        return 0


def test_the_file_is_all_that_haproxy_needs(node: Node, tmp_path: Path) -> None:
    node.deploy(deployed(node, "1"), tmp_path)
    node.wait(lambda: web.get(f"{node.url}/health/ready", timeout=60).status_code == 200, START_SECONDS)
    node.wait(lambda: node.up("embedder") == node.up("reranker") == 1, START_SECONDS)
    [file] = {Path(found[1]) for each in node.family() if (found := re.search(r"-f (\S+\.cfg)", title(each)))}
    node.wait(lambda: "retry-on conn-failure empty-response" in file.read_text(), START_SECONDS)
    # Its admin socket is open to whoever can reach it.
    assert file.parent.stat().st_mode & 0o077 == 0
    # The gateway and the parts of a rerank find where Serve listens: nothing in `args` says it.
    models = web.get(f"{node.url}/v1/models", headers=KEYED, timeout=60).json()["data"]
    assert [each["role"] for each in models] == ["embedder", "reranker"]
    results = node.post("/v1/rerank", query="a b", documents=["a b", "c"] * 20)["results"]
    assert [each["index"] for each in results] == [*range(0, 40, 2), *range(1, 40, 2)]


def test_what_a_replica_says_is_in_its_log_at_once(node: Node) -> None:
    headers = {**KEYED, "x-request-id": "defect-7"}
    answer = web.post(f"{node.url}/v1/embeddings", json={"input": "!boom"}, headers=headers, timeout=60)
    assert answer.status_code == 500
    node.wait(lambda: "RuntimeError: a secret of the inside" in node.said(), 60)
    assert re.search(r"^ERROR .* request failed id=defect-7", node.said(), re.MULTILINE)


def test_an_update_of_a_pool_of_one_loses_nothing(node: Node, tmp_path: Path) -> None:
    before = {each.pid for each in node.replicas()}
    over, statuses = threading.Event(), list[int]()

    def ask() -> None:
        while not over.wait(0.1):
            statuses.append(status(node.url))

    client = threading.Thread(target=ask)
    client.start()
    try:
        node.deploy(deployed(node, "2"), tmp_path)
        node.wait(lambda: not before & {each.pid for each in node.replicas()}, START_SECONDS)
        node.wait(lambda: node.up("embedder") == 1, START_SECONDS)
    finally:
        over.set()
        client.join()
    assert len(statuses) > 20
    assert set(statuses) == {200}


@pytest.mark.parametrize(
    ("lacking", "told"),
    [
        (environment._REQUIRED, "HAProxy mode is off: Serve began without RAY_SERVE_ENABLE_HA_PROXY=1"),
        ([haproxy.BINARY], f"HAProxy on this node is not qvl's: `export {haproxy.BINARY}="),
    ],
    ids=["no HAProxy", "a plain HAProxy"],
)
def test_replicas_refuse_to_come_up_behind_another_proxy(
    node: Node, tmp_path: Path, lacking: Iterable[str], told: str
) -> None:
    node.serve("shutdown", "-y")
    # The controller goes last; what is deployed while it goes is lost.
    node.wait(lambda: not any("ray::Serve" in title(each) for each in node.family()), STOP_SECONDS)
    config = deployed(node, "3")
    for variable in lacking:
        del config["controller_options"]["runtime_env"]["env_vars"][variable]
    node.deploy(config, tmp_path)
    node.wait(lambda: told in " ".join(node.serve("status").split()), START_SECONDS)
