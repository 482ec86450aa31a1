"""vLLM's engine process, asked past its front: prompts in, rows out.

`AsyncLLM.encode` checks, copies, registers and wraps each request by itself; of a short text's CPU that took
340 us here, where this takes 140. What is done once stays vLLM's: the start, adapters, signs of life, the
end, and the request that all others are copies of.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from qvl.engine.arena import Place
from qvl.engine.errors import QvlError, TooLarge, Unavailable
from qvl.engine.tokens import Prompt, Span

if TYPE_CHECKING:
    from qvl.engine.media import Visual

_KWARGS = {
    "image": ("pixel_values", "image_grid_thw"),
    "video": ("pixel_values_videos", "video_grid_thw"),
}
"""Of vLLM's own model, so that its position code finds the grid."""


class Core:
    """Belongs to one event loop, from `open` to `close`."""

    def __init__(self, engine: Any) -> None:
        """`engine`: an AsyncLLM of which nothing else is asked for answers."""
        self._engine = engine
        self._client = engine.engine_core
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._reader: asyncio.Task[None] | None = None
        self.failure: BaseException | None = None
        """Why no answer will come any more."""
        self.ended = asyncio.Event()
        """Set when that was not for `close`."""

    async def open(self, task: str) -> None:
        """`task` as vLLM's pooler calls it."""
        from vllm import PoolingParams
        from vllm.inputs import tokens_input

        front, known = self._engine.input_processor, await self._engine.get_supported_tasks()
        self._like = front.process_inputs("", tokens_input([0]), PoolingParams(task=task), known)
        self._most_embeddings: int = front.mm_encoder_cache_size
        self._reader = asyncio.create_task(self._read())

    async def ask(
        self,
        prompt: Prompt,
        visuals: Sequence[Visual],
        places: Sequence[Place],
        adapter: Any = None,
        rank: int = 0,
    ) -> Any:
        """A tensor on the CPU; the least rank goes first. Who gives up waiting ends the work.

        Raises TooLarge for a medium that would never be encoded, EngineDeadError, and Unavailable after
        `close`.
        """
        if self.failure:
            raise self.failure
        own = str(next(self._numbers))
        asked = msgspec.structs.replace(
            self._like,
            request_id=own,
            external_req_id=own,
            prompt_token_ids=prompt.ids,
            mm_features=self._features(prompt, visuals, places) if visuals else None,
            # Its queue is ordered by it. After a jump back of the wall clock, newcomers would overtake all.
            arrival_time=time.monotonic(),
            lora_request=adapter,
            priority=rank,
        )
        answer = self._waiting[own] = asyncio.get_running_loop().create_future()
        try:
            await self._client.add_request_async(asked)
            return await answer
        except asyncio.CancelledError:
            await self._client.abort_requests_async([own])
            raise
        finally:
            del self._waiting[own]

    def close(self) -> None:
        """Before the engine process is ended, or its end would be reported as a crash. Harmless twice."""
        if self._reader:
            self._reader.cancel()
        self._fail(Unavailable("the engine stopped before it answered", code="engine_dead"))

    async def _read(self) -> None:
        try:
            while True:
                for each in (await self._client.get_output_async()).outputs:
                    self._answer(each)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must know
            self._fail(error)
            self.ended.set()

    def _answer(self, output: Any) -> None:
        waiting = self._waiting.get(output.request_id)
        if waiting is None or waiting.done():
            return
        if output.pooling_output is not None:
            waiting.set_result(output.pooling_output)
        elif output.finish_reason is not None:
            waiting.set_exception(QvlError(f"the engine gave its input up ({output.finish_reason})"))

    def _fail(self, error: BaseException) -> None:
        self.failure = self.failure or error
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)

    def _features(self, prompt: Prompt, visuals: Sequence[Visual], places: Sequence[Place]) -> list[Any]:
        """As vLLM's front makes them: content hash, pixels and span of each medium, in the prompt's order."""
        from vllm.multimodal.inputs import MultiModalFeatureSpec

        made = []
        for visual, place, span in zip(visuals, places, prompt.spans, strict=True):
            if visual.tokens > self._most_embeddings:
                raise TooLarge(
                    f"a medium of {visual.tokens} tokens does not fit into one engine step "
                    f"({self._most_embeddings}): send a smaller one, or raise --max-batched-tokens",
                    code="media_too_large",
                )
            made.append(
                MultiModalFeatureSpec(
                    data=_kwargs_item(visual.kind, visual.grid, place),
                    modality=visual.kind,
                    identifier=visual.digest,
                    mm_position=_range(visual, span, prompt.ids),
                    mm_hash=visual.digest,
                )
            )
        return sorted(made, key=lambda each: each.mm_position.offset)


@lru_cache(256)
def _kwargs_item(kind: str, grid: tuple[int, int, int], place: Place) -> Any:
    """Made once for all the pairs of a query."""
    import torch
    from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems

    pixels, shape = _KWARGS[kind]
    field = MultiModalFieldConfig.batched(kind, keep_on_cpu=True)
    data = {
        pixels: torch.tensor([[place.offset, place.nbytes, place.generation]]),
        shape: torch.tensor([grid]),
    }
    return MultiModalKwargsItems.from_hf_inputs(data, {pixels: field, shape: field})[kind][0]


def _range(visual: Visual, span: Span, ids: list[int]) -> Any:
    import torch
    from vllm.multimodal.inputs import PlaceholderRange

    if visual.kind == "image":
        return PlaceholderRange(offset=span.offset, length=span.length)
    inside = torch.tensor(ids[span.offset : span.offset + span.length])
    return PlaceholderRange(offset=span.offset, length=span.length, is_embed=inside == span.pad)
