"""What is told while applications start: what is tried again, how far they are, and why they did not."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from qvl.engine.errors import CheckpointError, ConfigError, NotStarted, short

if TYPE_CHECKING:
    from ray.serve.schema import ApplicationStatusOverview, DeploymentStatusOverview

_TELL_SECONDS = 30.0
_MOST_SAID = 500
"""Characters of what a replica said."""
_RAISED = re.compile(r"^(?:ray\.exceptions\.\w+\((\w+)\)|[\w.]*?(\w+)): (.+)$")
"""The last line of a traceback, whose error Ray may have wrapped."""
_DIED = re.compile(r"^\w*(?:ActorDied|WorkerCrashed|ActorUnavailable)Error\(")
"""How Ray writes an error of its own, which has no words then."""
_FINAL = {ConfigError.__name__, CheckpointError.__name__}


class Progress:
    """Writes to stderr what has changed since it was last asked, and every half minute what is left."""

    def __init__(self) -> None:
        self._begun = self._told_at = time.monotonic()
        self._said: dict[str, str] = {}

    def tell(self, applications: Sequence[ApplicationStatusOverview]) -> None:
        now = time.monotonic()
        for name, each in _deployments(applications):
            if each.message != self._said.get(name, "") and "failed to start" in each.message:
                sys.stderr.write(f"qvl: {name}: a replica did not start: {_last(each.message)[1]}\n")
            self._said[name] = each.message
        if now - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            parts = ", ".join(f"{name} {_running(each)}" for name, each in _deployments(applications))
            sys.stderr.write(f"qvl: still starting, {now - self._begun:.0f} s so far: {parts}\n")
        sys.stderr.flush()


def why(applications: Sequence[ApplicationStatusOverview]) -> ConfigError:
    """Of applications of which one has failed: what its replicas said last. NotStarted where it may pass."""
    failed = [each for each in applications if each.status == "DEPLOY_FAILED"]
    found = [_last(each.message) for _, each in _deployments(failed) if each.status == "DEPLOY_FAILED"]
    found = found or [_last(each.message) for each in failed]
    said = "; ".join(dict.fromkeys(reason for _, reason in found))
    final = any(kind in _FINAL for kind, _ in found)
    return (ConfigError if final else NotStarted)(f"the replicas did not start: {said}")


def _deployments(
    applications: Sequence[ApplicationStatusOverview],
) -> Iterator[tuple[str, DeploymentStatusOverview]]:
    for application in applications:
        yield from application.deployments.items()


def _last(message: str) -> tuple[str, str]:
    """Of a message that may end with a traceback: the error's class and what it says."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["Ray gave no reason"]
    if _DIED.match(lines[-1]):
        return "", "its process died; this machine, or its container, may be out of memory (see its log)"
    if raised := _RAISED.match(lines[-1]):
        return raised[1] or raised[2], short(raised[3], _MOST_SAID)
    return "", short(lines[-1], _MOST_SAID)


def _running(deployment: DeploymentStatusOverview) -> str:
    states = deployment.replica_states
    return f"{states.get('RUNNING', 0)} of {sum(states.values())} replicas run"
