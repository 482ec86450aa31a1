"""Around a replica's app: where it is mounted, and that HAProxy mode is asked for."""

from __future__ import annotations

import re
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from starlette.testclient import TestClient

from qvl.engine.api import create_app
from qvl.engine.config import EngineConfig, ServerConfig
from qvl.engine.errors import ConfigError
from qvl.ray_serve import environment
from qvl.ray_serve.config import load
from qvl.ray_serve.ingress import Mounted, inner
from tests.engine.http.fake import FakeEngine
from tests.ray_serve.front import free_port, front

CONFIG = load({"embedder": "a", "port": 1234, "request_seconds": 30.5})


@pytest.mark.parametrize(
    ("path", "prefix", "seen"),
    [
        ("/v1/rerank", "/v1/rerank", "/v1/rerank"),
        ("/v1/rerank/", "/v1/rerank", "/v1/rerank/"),
        ("/v1/rerank/score", "/v1/rerank", "/score"),
        ("/v1/rerank/v2/rerank", "/v1/rerank", "/v2/rerank"),
        ("/v1/reranker", "/v1/rerank", "/v1/reranker"),
        ("/v1/embeddings", "/", "/v1/embeddings"),
        ("/", "/", "/"),
    ],
)
def test_paths_behind_a_prefix(path: str, prefix: str, seen: str) -> None:
    assert inner(path, prefix) == seen


def test_ray_tags_the_answer_so_the_app_does_not() -> None:
    config = ServerConfig(engine=EngineConfig(embedder="a", reranker="b"))
    with TestClient(Mounted(create_app(FakeEngine(), config), "/v1/rerank")) as client:
        answer = client.post("/v1/rerank/score", json={"queries": "a", "documents": ["a"]})
        assert answer.status_code == 200
        assert "x-request-id" not in answer.headers
        assert client.get("/v1/rerank/nothing").json()["error"]["code"] == "route_not_found"


def test_haproxy_is_asked_for_and_required() -> None:
    variables = environment.variables(CONFIG)
    environment.require(variables)
    assert variables["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"] == "31"
    assert all(isinstance(value, str) for value in variables.values())
    with pytest.raises(ConfigError, match="RAY_SERVE_ENABLE_HA_PROXY=1"):
        environment.require({"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"})
    binary = "RAY_SERVE_HAPROXY_BINARY_PATH"
    for plain in ({}, {binary: ""}, {binary: "/usr/sbin/haproxy"}):
        found = {key: value for key, value in variables.items() if key != binary} | plain
        with pytest.raises(ConfigError, match=rf"`export {binary}=\$\(command -v qvl-haproxy\)`"):
            environment.require(found)


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")],
)
def test_nothing_that_answers_is_not_haproxy(host: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, stop = load({"embedder": "a", "stats_host": host, "stats_port": 1}), Event()
    monkeypatch.setattr(environment, "_CHECK_SECONDS", 0)
    with pytest.raises(ConfigError, match=rf"HAProxy is not in front .*http://{re.escape(shown)}:1/"):
        environment.check(config, stop)
    stop.set()
    monkeypatch.setattr(environment, "_CHECK_SECONDS", 60)
    assert not environment.check(config, stop)


def test_haproxy_is_waited_for_until_it_has_replicas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stats = free_port()
    separate = {"embedder": "a", "reranker": "b", "layout": "separate", "stats_port": stats}
    with socket.create_server(("127.0.0.1", 0)) as replica:
        server = f"server SERVE_REPLICA::qvl-qvl-%s-x 127.0.0.1:{replica.getsockname()[1]} check"
        servers = "\n    ".join((server % "both", server % "embedder", server % "reranker" + " disabled"))
        with ThreadPoolExecutor() as pool:
            ready = pool.submit(environment.check, load({"embedder": "a", "stats_port": stats}), Event())
            with front(tmp_path / "haproxy.cfg", servers, stats=stats):
                assert ready.result()
                monkeypatch.setattr(environment, "_CHECK_SECONDS", 0)
                lacking = "no replica of qvl-reranker is up, no replica of qvl-gateway is up"
                with pytest.raises(ConfigError, match=rf"in front .*:{stats}/stats;csv: {lacking}\)"):
                    environment.check(load(separate), Event())


def test_the_admin_socket_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="q") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        with environment.private_folder(CONFIG):
            [folder] = Path(short).iterdir()
            assert folder.stat().st_mode & 0o777 == 0o700
        assert not folder.exists()


def test_a_long_temporary_folder_is_said_to_be_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + "long" * 9)
    with pytest.raises(ConfigError, match="shorter TMPDIR"), environment.private_folder(CONFIG):
        pass
