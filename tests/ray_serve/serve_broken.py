"""`python -m tests.ray_serve.serve_broken --port=N ...`: `qvl serve --ray` whose replicas do not start.

`--embedder=wrong` is one that never can; any other may.
"""

from __future__ import annotations

import sys

from qvl.engine.config import EngineConfig
from qvl.engine.errors import CheckpointError, ConfigError, NotStarted
from qvl.engine.metrics import Metrics
from qvl.ray_serve.config import load
from qvl.ray_serve.run import serve
from tests.engine.http.fake import FakeEngine


async def start(config: EngineConfig, metrics: Metrics) -> FakeEngine:
    if config.embedder == "wrong":
        raise CheckpointError("a: this one is not for us")
    raise NotStarted("a: no GPU yet")


if __name__ == "__main__":
    from tests.ray_serve import serve_broken  # so that Ray pickles `start` by its name

    settings = dict(each.removeprefix("--").split("=") for each in sys.argv[1:])
    try:
        serve(load(settings), serve_broken.start)
    except ConfigError as error:
        sys.exit(f"{type(error).__name__}: {error}")
