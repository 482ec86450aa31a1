"""Stand-in replicas: `python -m tests.engine.http.fake_replica PORT REPLICAS BEHAVIOUR TLS SETTINGS`."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from qvl.engine import connection
from qvl.engine.config import EngineConfig, ServerConfig
from qvl.engine.errors import ConfigError, NotStarted
from qvl.engine.metrics import Metrics
from qvl.engine.placement import VISIBLE
from qvl.engine.replicas import supervisor
from tests.engine.http.serve_fake import Mortal

STALL_SECONDS = 8.0
KEPT_SECONDS = (0.2, 0.4)
_PR_SET_CHILD_SUBREAPER = 36


async def start(config: EngineConfig, metrics: Metrics) -> Mortal:
    return Mortal(metrics, stopping=0)


async def refuse(config: EngineConfig, metrics: Metrics) -> Mortal:
    raise ConfigError("x is not a checkpoint")


async def not_yet(config: EngineConfig, metrics: Metrics) -> Mortal:
    raise NotStarted("x: the engine did not start: no device")


async def later(config: EngineConfig, metrics: Metrics) -> Mortal:
    """The third of all starts comes to something, and those after it."""
    if crashes() < 2:
        Path(tempfile.gettempdir(), f"crash-{os.getpid()}").touch()
        return await not_yet(config, metrics)
    return Mortal(metrics, stopping=0)


async def one_waits(config: EngineConfig, metrics: Metrics) -> Mortal:
    """The one on GPU 1, for a file."""
    while os.environ[VISIBLE] == "1" and not Path(tempfile.gettempdir(), "go").exists():  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0.05)
    return Mortal(metrics, stopping=0)


async def one_slow(config: EngineConfig, metrics: Metrics) -> Mortal:
    """Longer than the supervisor waits for it."""
    return await one_waits(config, metrics)


async def second_slow(config: EngineConfig, metrics: Metrics) -> Mortal:
    """Longer than the supervisor waits for it; of one device, so that the third waits behind it."""
    begun = len(list(Path(tempfile.gettempdir()).glob("begun-*")))
    Path(tempfile.gettempdir(), f"begun-{os.getpid()}").touch()
    if begun == 1:
        await asyncio.Event().wait()
    return Mortal(metrics, stopping=0)


async def brief(config: EngineConfig, metrics: Metrics) -> Mortal:
    """It keeps connections for a moment."""
    connection.KEPT_SECONDS = KEPT_SECONDS
    return Mortal(metrics, stopping=0)


async def noted(config: EngineConfig, metrics: Metrics) -> Mortal:
    """Whether it may ask the hub."""
    said = os.environ.get("HF_HUB_OFFLINE", "")
    Path(tempfile.gettempdir(), f"offline-{os.getpid()}").write_text(said)
    return Mortal(metrics, stopping=0)


async def parent(config: EngineConfig, metrics: Metrics) -> Mortal:
    """Of a process that its supervisor inherits, as process 1 would."""
    await asyncio.create_subprocess_exec("sleep", "3600")
    return Mortal(metrics, stopping=0)


async def crash(config: EngineConfig, metrics: Metrics) -> Mortal:
    os._exit(9)


def crashes() -> int:
    return len(list(Path(tempfile.gettempdir()).glob("crash-*")))


async def one_bad(config: EngineConfig, metrics: Metrics) -> Mortal:
    """The one on GPU 1 always crashes, the other is ready after that one has crashed four times."""
    if os.environ[VISIBLE] == "1":
        Path(tempfile.gettempdir(), f"crash-{os.getpid()}").touch()
        os._exit(9)
    while crashes() < 4:  # noqa: ASYNC110 - in another process
        await asyncio.sleep(0.05)
    return Mortal(metrics, stopping=0)


async def hang(config: EngineConfig, metrics: Metrics) -> Mortal:
    """As `start`, where silence means it: elsewhere a busy machine may be the reason."""
    return Mortal(metrics, stopping=0)


async def linger(config: EngineConfig, metrics: Metrics) -> Mortal:
    return Mortal(metrics, stopping=3600)


BEHAVIOURS = {
    each.__name__: each
    for each in (
        start,
        refuse,
        not_yet,
        later,
        crash,
        one_bad,
        one_waits,
        one_slow,
        second_slow,
        brief,
        noted,
        parent,
        hang,
        linger,
    )
}


def main(port: str, replicas: str, behaviour: str, tls: str, settings: str) -> int:
    stall_seconds = STALL_SECONDS if behaviour == "hang" else 120
    config = ServerConfig(
        engine=EngineConfig(embedder="x", stall_seconds=stall_seconds),
        port=int(port),
        replicas=int(replicas),
        drain_seconds=2,
        tls_cert=tls or None,
        **json.loads(settings),
    )
    if behaviour == "parent":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        bad = behaviour.startswith("one_")
        loading = 1.0 if behaviour.endswith("_slow") else supervisor._LOADING_SECONDS
        pauses = (0.1,) * 10 if bad else supervisor._PAUSES_SECONDS
        with (
            patch.object(supervisor, "gpus_here", lambda: ["0", "1"] if bad else []),
            patch.object(supervisor, "_PAUSES_SECONDS", pauses),
            patch.object(supervisor, "_LOADING_SECONDS", loading),
        ):
            return supervisor.supervise(config, BEHAVIOURS[behaviour])
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    # By its name, as the replicas will know it; here it would be `__main__`'s.
    from tests.engine.http.fake_replica import main as named

    sys.exit(named(*sys.argv[1:]))
