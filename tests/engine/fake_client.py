"""vLLM's engine client, its process being a list of what it was asked and a queue of its answers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import torch


class FakeClient:
    """The parts of an AsyncLLM's `engine_core` and `input_processor` that are used."""

    def __init__(self, most_embeddings: int) -> None:
        self.mm_encoder_cache_size = most_embeddings
        self.asked: list[Any] = []
        self.aborted: list[list[str]] = []
        """What each message named."""
        self.outputs: asyncio.Queue[Any] = asyncio.Queue()
        self.between_steps = asyncio.Event()
        """Set: questions are answered."""
        self.between_steps.set()

    async def get_supported_tasks_async(self) -> tuple[str, ...]:
        return ("embed",)

    def process_inputs(self, own: str, prompt: Any, params: Any, tasks: tuple[str, ...]) -> Any:
        from vllm.v1.engine import EngineCoreRequest

        assert params.task in tasks
        ids = prompt["prompt_token_ids"]
        return EngineCoreRequest(own, ids, None, None, params, 0.0, None, None, None)

    async def add_request_async(self, request: Any) -> None:
        self.asked.append(request)

    async def abort_requests_async(self, ids: list[str]) -> None:
        self.aborted.append(ids)

    async def is_sleeping_async(self) -> bool:
        await self.between_steps.wait()
        return False

    async def get_output_async(self) -> Any:
        given = await self.outputs.get()
        if isinstance(given, Exception):
            raise given
        return SimpleNamespace(outputs=given)


def output(own: str, row: torch.Tensor | None, reason: str | None = "stop") -> Any:
    """Of one request; `row` None with a `reason`: it was given up."""
    return SimpleNamespace(request_id=own, pooling_output=row, finish_reason=reason)


def dead() -> Exception:
    """What vLLM raises for an engine process that has ended."""
    from vllm.v1.engine.exceptions import EngineDeadError

    return EngineDeadError()
