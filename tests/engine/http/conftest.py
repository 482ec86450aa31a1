"""The app over the stand-in engine: in memory (`client`), and on a real port (`live`)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import uvicorn
from starlette.testclient import TestClient

from qvl.engine.api import create_app
from qvl.engine.config import EngineConfig, Limits, ServerConfig
from qvl.engine.connection import Connection
from qvl.engine.port import bind
from tests.engine.http.fake import EMBEDDER, RERANKER, FakeEngine

Client = TestClient


def settings(limits: Limits | None = None, **options: object) -> ServerConfig:
    engine = EngineConfig(embedder=EMBEDDER, reranker=RERANKER, limits=limits or Limits())
    return ServerConfig(engine=engine, **options)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def make(engine: FakeEngine) -> Iterator[Callable[..., Client]]:
    """`make(api_key=("k",), limits=Limits(...))`: a client of an app with these settings, and the seal of
    the parts that it is sent."""
    with ExitStack() as stack:
        yield lambda seal=None, **options: stack.enter_context(
            TestClient(create_app(engine, settings(**options), seal=seal))
        )


@pytest.fixture
def client(make: Callable[..., Client]) -> Client:
    return make()


@contextmanager
def on_a_port(engine: FakeEngine, full: Callable[[], None] | None = None, **options: object) -> Iterator[str]:
    """The app under uvicorn, as `qvl serve` runs it."""
    with bind("127.0.0.1", 0) as listener:
        config = uvicorn.Config(
            create_app(engine, settings(**options), full),
            http=Connection,
            lifespan="on",
            log_config=None,
            timeout_keep_alive=settings(**options).keep_alive_seconds,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def live(engine: FakeEngine) -> Iterator[str]:
    with on_a_port(engine) as url:
        yield url
