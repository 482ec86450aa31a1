"""A replica's life in its actor, without Ray around it."""

from __future__ import annotations

import asyncio
import warnings

import pytest

from qvl.engine.config import EngineConfig, ServerConfig
from qvl.engine.metrics import Metrics
from qvl.engine.port import DIED
from qvl.engine.protocol import EmbedRequest, EmbedResult
from qvl.ray_serve import environment
from qvl.ray_serve.config import DeployConfig
from tests.engine.http.fake import FakeEngine


class Hanging(FakeEngine):
    """From its first request on."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        self.asked.set()
        return await asyncio.get_running_loop().create_future()

    async def died(self) -> str:
        await self.asked.wait()
        return "the engine hangs"


async def start(config: EngineConfig, metrics: Metrics) -> Hanging:
    return Hanging()


def test_an_engine_that_hangs_in_its_warm_up_ends_the_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, as it is imported
        from qvl.ray_serve import deployment

    class Replica(deployment.EngineReplica.__bases__[0]):  # type: ignore[misc]  # as we wrote it
        def __del__(self) -> None:
            """Ray awaits that of the class; the interpreter would not."""

    async def front() -> str:
        return "http://127.0.0.1:1"

    async def exit_code() -> int:
        left: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        monkeypatch.setattr(deployment, "leave", left.set_result)
        config = DeployConfig(server=ServerConfig(engine=EngineConfig(embedder="x")))
        replica = Replica(config, "both", start, b"seal")
        warming = asyncio.create_task(replica.__serve_build_asgi_app__())
        try:
            return await asyncio.wait_for(left, 20)
        finally:
            warming.cancel()

    for name, value in environment._REQUIRED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(deployment, "front", front)
    monkeypatch.setattr(deployment, "log_with_serve", lambda _: None)
    monkeypatch.setattr(deployment, "_FLUSH_SECONDS", 0)
    assert asyncio.run(exit_code()) == DIED
