"""`… serve_fake PORT LOADING STOPPING DRAIN REQUEST TLS SETTINGS`: see test_server.py."""

from __future__ import annotations

import asyncio
import json
import sys

from qvl.engine.config import EngineConfig, ServerConfig
from qvl.engine.errors import ConfigError
from qvl.engine.metrics import Metrics
from qvl.engine.protocol import Content, EmbedRequest, EmbedResult
from qvl.engine.server import serve
from tests.engine.http.fake import FakeEngine


class Mortal(FakeEngine):
    """Dies of the text `!die`, and takes its time to stop."""

    def __init__(self, metrics: Metrics, stopping: float) -> None:
        super().__init__()
        self.metrics = metrics
        self.stopping = stopping
        self.dead = asyncio.Event()

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        first = request.input[0]
        if isinstance(first, Content) and first.texts == ("!die",):
            self.dead.set()
            await asyncio.sleep(3600)
        return await super().embed(request)

    async def died(self) -> str:
        await self.dead.wait()
        return "the engine of x has died"

    async def stop(self) -> None:
        await asyncio.sleep(self.stopping)


def main(port: str, loading: str, stopping: str, drain: str, request: str, tls: str, settings: str) -> int:
    async def start(config: EngineConfig, metrics: Metrics) -> Mortal:
        if loading == "refused":
            while b'code="starting"' not in metrics.render():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        else:
            await asyncio.sleep(float(loading))
        return Mortal(metrics, float(stopping))

    config = ServerConfig(
        engine=EngineConfig(embedder="x"),
        port=int(port),
        drain_seconds=float(drain),
        request_seconds=float(request),
        tls_cert=tls or None,
        **json.loads(settings),
    )
    try:
        return serve(config, start)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
