"""`qvl serve --ray`: mistakes that are told before any of Ray is started."""

from __future__ import annotations

import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from qvl.engine import cli
from qvl.engine.config import EngineConfig, ServerConfig
from qvl.ray_serve import run
from qvl.ray_serve.config import ClusterConfig, DeployConfig, Layout, Replicas
from tests.conftest import Pair
from tests.ray_serve.front import free_port


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def told(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert cli.main(["serve", "--ray", *options]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    return said.err


def test_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "/no/such: no such folder" in told(capsys, "--embedder", "/no/such", "--port", str(free_port()))


def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in told(capsys, "--embedder", "a", "--port", str(port))
        options = ("--embedder", "a", "--port", str(free_port()), "--stats-port", str(port))
        assert f"port {port}" in told(capsys, *options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--port", "0"), "needs a --port"),
        (("--layout", "separate"), "separate pools need both"),
        (("--reranker", "b", "--layout", "separate", "--index", "i"), "index goes with layout together"),
        (("--min-replicas", "0"), "at least 1"),
        (("--replica-gpus", "1.5"), "--replica-gpus"),
        (("--api-key-file", "/no/such", "--port", str(free_port())), "cannot read --api-key-file"),
    ],
)
def test_settings_that_cannot_work(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    assert said in told(capsys, "--embedder", "a", *options)


def test_more_gpus_than_there_are(pair: Pair) -> None:
    """Ray would wait for them for ever."""
    options = ["--embedder", str(pair.embedder), "--port", str(free_port()), "--replica-gpus", "64"]
    options += ["--tensor-parallel", "64"]
    command = [sys.executable, "-m", "qvl.engine.cli", "serve", "--ray", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 2, done.stderr
    assert "the replicas take 64 GPUs and there are" in done.stderr


def test_shares_of_a_card_add_up(pair: Pair) -> None:
    def short(count: int, part: float, layout: Layout = "together") -> str:
        engine = EngineConfig(embedder=str(pair.embedder), reranker=str(pair.reranker))
        cluster = ClusterConfig(layout=layout, replicas=Replicas(min_replicas=count, replica_gpus=part))
        return run.lacking(DeployConfig(server=ServerConfig(engine=engine), cluster=cluster), 1)

    assert not short(10, 0.1)
    assert not short(5, 0.1, "separate")
    assert "take 2 GPUs and there are 1" in short(6, 0.1, "separate")
    assert "take 3 GPUs" in short(3, 0.6)


def test_all_applications_of_ours_are_told_to_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cluster that stays, one that drains must not leave the others to nobody, nor take a stranger's."""
    found, told = {*run.NAMES, "other", "qvl-of-others"}, set()

    def delete(name: str, _blocking: bool = True) -> None:
        assert not _blocking
        told.add(name)

    def status() -> SimpleNamespace:
        left = found - told if told >= run.NAMES else found
        return SimpleNamespace(applications=dict.fromkeys(left))

    monkeypatch.setitem(
        sys.modules, "ray", SimpleNamespace(serve=SimpleNamespace(delete=delete, status=status))
    )
    run._remove(ours=False)
    assert told == run.NAMES


def test_ray_is_not_installed(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    from tests.tiny import write_pair

    embedder, _ = write_pair(tmp_path)
    assert "pip install 'qvl[ray]'" in told(capsys, "--embedder", str(embedder), "--port", str(free_port()))
