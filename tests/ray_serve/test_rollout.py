"""What `qvl serve --ray` says while replicas start, and of those that do not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

from qvl.engine.errors import ConfigError, NotStarted
from qvl.ray_serve import rollout
from qvl.ray_serve.rollout import Progress, why
from tests.ray_serve.front import free_port

FAILED = (
    "The deployment failed to start 3 times in a row. See controller logs for details. Error:\nTraceback:\n"
)
RETRIED = "A replica failed to start with exception. Retrying 2 more time(s). Error:\nTraceback:\n"


def application(message: str, status: str = "DEPLOY_FAILED", **states: int) -> SimpleNamespace:
    deployment = SimpleNamespace(status=status, message=message, replica_states=states)
    return SimpleNamespace(status=status, message="Failed to update", deployments={"qvl-both": deployment})


@pytest.mark.parametrize(
    ("last", "kind", "said"),
    [
        ("qvl.engine.errors.CheckpointError: a: not ours", ConfigError, "a: not ours"),
        ("ray.exceptions.RayTaskError(ConfigError): --x is: 5", ConfigError, "--x is: 5"),
        ("qvl.engine.errors.NotStarted: a: no memory", NotStarted, "a: no memory"),
        ("RuntimeError: broken", NotStarted, "broken"),
        (
            "ActorDiedError()",
            NotStarted,
            "its process died; this machine, or its container, may be out of memory (see its log)",
        ),
        ("No words of a class.", NotStarted, "No words of a class."),
    ],
)
def test_why_it_did_not_start(last: str, kind: type[ConfigError], said: str) -> None:
    error = why([application("", "HEALTHY"), application(f"{FAILED}{last}\n\n")])
    assert type(error) is kind
    assert str(error) == f"the replicas did not start: {said}"


def test_two_pools_that_fail_alike_say_so_once() -> None:
    assert str(why([application(f"{FAILED}E: a")] * 2)) == "the replicas did not start: a"
    assert str(why([application(f"{FAILED}E: a"), application(f"{FAILED}E: b")])).endswith(": a; b")


def test_an_application_that_was_not_built() -> None:
    broken = SimpleNamespace(status="DEPLOY_FAILED", message="Traceback:\nE: no module", deployments={})
    assert str(why([broken])) == "the replicas did not start: no module"


def test_progress_is_told_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock: Iterator[float] = iter([0.0, 1.0, 2.0, 31.0, 32.0])
    monkeypatch.setattr(rollout, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = Progress()
    starting = application(f"{RETRIED}a.NotStarted: no GPU", "UPDATING", RUNNING=1, STARTING=3)
    for _ in range(4):
        progress.tell([starting])
    assert capsys.readouterr().err.splitlines() == [
        "qvl: qvl-both: a replica did not start: no GPU",
        "qvl: still starting, 31 s so far: qvl-both 1 of 4 replicas run",
    ]


@pytest.mark.engine
def test_replicas_that_do_not_start_say_why() -> None:
    ports = [f"--{name}={free_port()}" for name in ("port", "stats-port", "metrics-port")]
    command = [sys.executable, "-m", "tests.ray_serve.serve_broken", "--embedder=may", "--replica-cpus=0.1"]
    with TemporaryDirectory(prefix="qr-", ignore_cleanup_errors=True) as folder:
        for _ in range(3):
            done = subprocess.run(
                [*command, *ports],
                capture_output=True,
                text=True,
                check=False,
                timeout=900,
                env={**os.environ, "RAY_TMPDIR": folder},
            )
            if "timed out during startup" not in done.stderr:  # Ray's own node, on a busy machine
                break
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[-1] == "NotStarted: the replicas did not start: a: no GPU yet"
    assert "qvl: qvl-both: a replica did not start: a: no GPU yet" in lines
