"""One engine with both models, and the oracle on the same folders, per kind of checkpoint."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from qvl.engine import Engine, EngineConfig
from qvl.engine.check.reference import Reference
from qvl.engine.protocol import Content
from tests.parity import cases
from tests.tiny import write_pair

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

KINDS = {
    "tied": {"tied": True, "append_end": False},
    "untied, end token": {"tied": False, "append_end": True},
}
CHUNKS = {"tied": None, "untied, end token": 2048}
"""The second engine takes prompts in pieces, so that long ones go through chunked prefill."""
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""`make test-v2`: a large image takes Triton's interpreter minutes."""
EAGER = {"tied": True, "untied, end token": INTERPRETED}
"""The second is compiled, as on a CPU by default; how the model is compiled is the same for either runner."""
LONGEST = {"tied": 1000, "untied, end token": 250 if INTERPRETED else 5000}
"""Tokens of the prompts whose answers are compared; the ids of all are. What is too long is cut before any
model: of those one is enough."""
WHOLE = "text over any length"
"""It is compared by both: the first reads it whole, the second in pieces."""
PATIENCE = 600
"""Seconds for an engine's start, the slowest thing asked of it: one that hangs fails its test."""


@dataclass(frozen=True)
class Both:
    """The engine and what it must equal."""

    engine: Engine
    embedder: Reference
    reranker: Reference
    longest: int

    def compares(self, ids: list[list[int]], name: str) -> bool:
        """Whether vectors or scores of these prompts are compared too."""
        return name == WHOLE or max(map(len, ids)) <= self.longest


@contextmanager
def vllm_warnings() -> Iterator[None]:
    """Importing vLLM makes torch build script methods, which are deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
        yield


@pytest.fixture(scope="session")
def run() -> Iterator[Run[Any]]:
    """`run(coroutine)`: its result, from an event loop that lives as long as the session."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="parity-loop", daemon=True)
    thread.start()
    yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(PATIENCE)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="package", params=KINDS)
def both(
    request: pytest.FixtureRequest, run: Run[Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Both]:
    kind: str = request.param
    embedder, reranker = write_pair(tmp_path_factory.mktemp("parity"), **KINDS[kind])
    config = EngineConfig(
        embedder=str(embedder),
        reranker=str(reranker),
        dtype="float32",
        max_batched_tokens=CHUNKS[kind],
        answer_cache=0,
        enforce_eager=EAGER[kind],
    )
    with vllm_warnings():
        engine = run(Engine.start(config))
    yield Both(engine, Reference(embedder), Reference(reranker), LONGEST[kind])
    run(engine.stop())


@pytest.fixture
def as_item(tmp_path: Path) -> Callable[[Content], dict[str, Any]]:
    return lambda content: cases.as_item(content, tmp_path)
