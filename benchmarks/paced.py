"""`python -m benchmarks.paced --port=N ...`: `qvl serve --ray` on engines that are clocks and need no CPU.
With `--bare=1` it is `qvl serve`.

What is real: Ray Serve, its autoscaler and HAProxy, the HTTP app, admission, drains. Only the models wait
instead of reading, so that three replicas on two cores are as fast as three.
"""

from __future__ import annotations

import asyncio
import sys
import time

import numpy as np

from qvl.engine.admission import Admission, cost
from qvl.engine.config import EngineConfig
from qvl.engine.metrics import Metrics
from qvl.engine.protocol import EmbedRequest, EmbedResult, Usage
from qvl.engine.server import serve as serve_alone
from qvl.ray_serve.config import load
from qvl.ray_serve.run import serve
from tests.engine.http.fake import EMBEDDER, WIDTH, FakeEngine

RATE = 20_000.0
"""Tokens a second of one replica."""
START_SECONDS = 4.0


class Paced(FakeEngine):
    """Reads one request after the other."""

    def __init__(self, config: EngineConfig, metrics: Metrics) -> None:
        super().__init__()
        self.metrics = metrics
        self.admission = Admission(config.limits.queue_tokens)
        self._free = 0.0

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        tokens = cost(request)
        with self.admission.admit(tokens, request.priority):
            now = time.monotonic()
            self._free = max(now, self._free) + tokens / RATE
            await asyncio.sleep(self._free - now)
        # Not the stand-in's own vectors, which it makes of all the bytes of an item.
        rows = np.full((len(request.input), WIDTH), WIDTH**-0.5, np.float32)
        return EmbedResult(model=EMBEDDER, vectors=rows, usage=Usage(text_tokens=tokens), errors={})


async def start(config: EngineConfig, metrics: Metrics) -> Paced:
    await asyncio.sleep(START_SECONDS)
    return Paced(config, metrics)


if __name__ == "__main__":
    from benchmarks import paced  # so that Ray pickles `start` by its name

    settings = dict(each.removeprefix("--").split("=") for each in sys.argv[1:])
    bare = settings.pop("bare", None)
    config = load({"embedder": "a", "reranker": "b", **settings})
    sys.exit(serve_alone(config.server, paced.start) if bare else serve(config, paced.start))
