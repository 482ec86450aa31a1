"""Stand-in replicas: `python -m tests.engine.http.fake_replica PORT REPLICAS BEHAVIOUR [TLS]`."""

from __future__ import annotations

import os
import sys

from qvl.engine.config import EngineConfig, ServerConfig
from qvl.engine.errors import ConfigError
from qvl.engine.metrics import Metrics
from qvl.engine.replicas import supervisor
from tests.engine.http.serve_fake import Mortal

STALL_SECONDS = 10.0


async def start(config: EngineConfig, metrics: Metrics) -> Mortal:
    return Mortal(metrics, stopping=0)


async def refuse(config: EngineConfig, metrics: Metrics) -> Mortal:
    raise ConfigError("x is not a checkpoint")


async def crash(config: EngineConfig, metrics: Metrics) -> Mortal:
    os._exit(9)


async def linger(config: EngineConfig, metrics: Metrics) -> Mortal:
    return Mortal(metrics, stopping=3600)


BEHAVIOURS = {each.__name__: each for each in (start, refuse, crash, linger)}


def main(port: str, replicas: str, behaviour: str, tls: str = "") -> int:
    config = ServerConfig(
        engine=EngineConfig(embedder="x", stall_seconds=STALL_SECONDS),
        port=int(port),
        replicas=int(replicas),
        drain_seconds=2,
        tls_cert=tls or None,
    )
    try:
        return supervisor.supervise(config, BEHAVIOURS[behaviour])
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    # By its name, as the replicas will know it; here it would be `__main__`'s.
    from tests.engine.http.fake_replica import main as named

    sys.exit(named(*sys.argv[1:]))
