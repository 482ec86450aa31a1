"""`python -m tests.ray_serve.serve_fakes --port=N ...`: `qvl serve --ray` in separate pools, without a model.

Its builders are those of `qvl.ray_serve.app`.
The text `nap N` takes N seconds to answer.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from qvl.engine.admission import cost
from qvl.engine.config import EngineConfig
from qvl.engine.metrics import Metrics
from qvl.engine.protocol import Content, EmbedRequest, EmbedResult, ModelCard
from qvl.ray_serve.config import load
from qvl.ray_serve.run import serve
from tests.engine.http.fake import FakeEngine


class Napping(FakeEngine):
    """Has the models that it is configured for."""

    def __init__(self, config: EngineConfig, metrics: Metrics) -> None:
        super().__init__()
        self.metrics = metrics
        self.roles = {"embedder": config.embedder, "reranker": config.reranker}

    def models(self) -> list[ModelCard]:
        return [card for card in super().models() if self.roles[card.role]]

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        first = request.input[0]
        with self.admission.admit(cost(request), request.priority):
            if isinstance(first, Content) and first.texts[0].startswith("nap "):
                await asyncio.sleep(float(first.texts[0].split()[1]))
            return await super().embed(request)


async def start(config: EngineConfig, metrics: Metrics) -> Napping:
    return Napping(config, metrics)


def embedders(settings: dict[str, Any]) -> Any:
    from qvl.ray_serve import deployment

    return deployment.application(load(settings), "embedder", start)


def rerankers(settings: dict[str, Any]) -> Any:
    from qvl.ray_serve import deployment

    return deployment.application(load(settings), "reranker", start)


if __name__ == "__main__":
    from tests.ray_serve import serve_fakes  # so that Ray pickles `start` by its name

    settings = dict(each.removeprefix("--").split("=") for each in sys.argv[1:])
    sys.exit(
        serve(load({"embedder": "a", "reranker": "b", "layout": "separate", **settings}), serve_fakes.start)
    )
