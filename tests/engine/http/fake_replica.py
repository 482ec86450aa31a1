"""Stand-in replicas: `python -m tests.engine.http.fake_replica PORT REPLICAS BEHAVIOUR TLS SETTINGS`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from qvl.engine.config import EngineConfig, ServerConfig
from qvl.engine.errors import ConfigError
from qvl.engine.metrics import Metrics
from qvl.engine.placement import VISIBLE
from qvl.engine.replicas import supervisor
from tests.engine.http.serve_fake import Mortal

STALL_SECONDS = 6.0


async def start(config: EngineConfig, metrics: Metrics) -> Mortal:
    return Mortal(metrics, stopping=0)


async def refuse(config: EngineConfig, metrics: Metrics) -> Mortal:
    raise ConfigError("x is not a checkpoint")


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


async def linger(config: EngineConfig, metrics: Metrics) -> Mortal:
    return Mortal(metrics, stopping=3600)


BEHAVIOURS = {each.__name__: each for each in (start, refuse, crash, one_bad, linger)}


def main(port: str, replicas: str, behaviour: str, tls: str, settings: str) -> int:
    config = ServerConfig(
        engine=EngineConfig(embedder="x", stall_seconds=STALL_SECONDS),
        port=int(port),
        replicas=int(replicas),
        drain_seconds=2,
        tls_cert=tls or None,
        **json.loads(settings),
    )
    try:
        bad = behaviour == "one_bad"
        pauses = (0.1,) * 10 if bad else supervisor._PAUSES_SECONDS
        with (
            patch.object(supervisor, "gpus_here", lambda: ["0", "1"] if bad else []),
            patch.object(supervisor, "_PAUSES_SECONDS", pauses),
        ):
            return supervisor.supervise(config, BEHAVIOURS[behaviour])
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    # By its name, as the replicas will know it; here it would be `__main__`'s.
    from tests.engine.http.fake_replica import main as named

    sys.exit(named(*sys.argv[1:]))
