"""Requests past vLLM's front: what travels, and who is told what. The parity suite asks the real engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from qvl.engine.arena import Place
from qvl.engine.core import Core
from qvl.engine.errors import QvlError, TooLarge, Unavailable
from qvl.engine.media import Visual
from qvl.engine.tokens import Prompt, Span
from tests.parity.conftest import vllm_warnings

IMAGE, VIDEO, START, END = 90, 91, 92, 93
MOST = 8
"""Tokens of a medium that the encoder takes."""
TEXT = Prompt([1, 2, 3])


class Engine:
    """An AsyncLLM's parts that are used, its process being a list and a queue."""

    def __init__(self) -> None:
        self.engine_core = self.input_processor = self
        self.mm_encoder_cache_size = MOST
        self.asked: list[Any] = []
        self.aborted: list[str] = []
        self.outputs: asyncio.Queue[Any] = asyncio.Queue()

    async def get_supported_tasks(self) -> tuple[str, ...]:
        return ("embed",)

    def process_inputs(self, own: str, prompt: Any, params: Any, tasks: tuple[str, ...]) -> Any:
        from vllm.v1.engine import EngineCoreRequest

        assert params.task in tasks
        ids = prompt["prompt_token_ids"]
        return EngineCoreRequest(own, ids, None, None, params, 0.0, None, None, None)

    async def add_request_async(self, request: Any) -> None:
        self.asked.append(request)

    async def abort_requests_async(self, ids: list[str]) -> None:
        self.aborted += ids

    async def get_output_async(self) -> Any:
        given = await self.outputs.get()
        if isinstance(given, Exception):
            raise given
        return SimpleNamespace(outputs=given)

    def answer(self, own: str, row: torch.Tensor | None, reason: str | None = "stop") -> Any:
        return SimpleNamespace(request_id=own, pooling_output=row, finish_reason=reason)


def with_core(work: Callable[[Core, Engine], Awaitable[None]]) -> None:
    async def run() -> None:
        engine = Engine()
        core = Core(engine)
        await core.open("embed")
        try:
            await work(core, engine)
        finally:
            core.close()

    with vllm_warnings():
        asyncio.run(asyncio.wait_for(run(), 60))


def visual(kind: str, frames: int, height: int, width: int) -> Visual:
    pixels = np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    times = tuple(float(i) for i in range(frames // 2)) if kind == "video" else ()
    return Visual(kind, pixels, times, f"hash-of-{kind}")  # type: ignore[arg-type]


def features(prompt: Prompt, visuals: list[Visual], places: list[Place]) -> list[Any]:
    """Of the request that travels."""
    found: list[Any] = []

    async def work(core: Core, engine: Engine) -> None:
        asking = asyncio.ensure_future(core.ask(prompt, visuals, places))
        await asyncio.sleep(0)
        found.extend(engine.asked[0].mm_features)
        asking.cancel()

    with_core(work)
    return found


def test_an_image_travels_as_its_place() -> None:
    prompt = Prompt([1, START, *[IMAGE] * 6, END, 2], (Span(2, 6, IMAGE),))
    (made,) = features(prompt, [visual("image", 1, 64, 96)], [Place(128, 18432, 7)])
    assert (made.modality, made.identifier, made.mm_hash) == ("image", "hash-of-image", "hash-of-image")
    assert made.data["pixel_values"].data.tolist() == [128, 18432, 7]
    assert made.data["image_grid_thw"].data.tolist() == [1, 4, 6]
    place = made.mm_position
    assert (place.offset, place.length, place.is_embed) == (2, 6, None)


def test_a_video_is_one_range_with_its_pads_marked() -> None:
    frame = [START, IMAGE + 1, IMAGE + 1, END]
    prompt = Prompt([7, *frame, 8, *frame, 9], (Span(1, 9, VIDEO),))
    (made,) = features(prompt, [visual("video", 4, 32, 64)], [Place(0, 24576, 1)])
    assert made.data["video_grid_thw"].data.tolist() == [2, 2, 4]
    marks = made.mm_position.is_embed.tolist()
    assert marks == [False, True, True, False, False, False, True, True, False]


def test_media_are_in_the_prompts_order() -> None:
    small, big = visual("image", 1, 32, 32), visual("image", 1, 32, 64)
    prompt = Prompt([IMAGE, IMAGE, 5, IMAGE], (Span(3, 1, IMAGE), Span(0, 2, IMAGE)))
    made = features(prompt, [small, big], [Place(0, 1, 1), Place(9, 1, 2)])
    assert [each.mm_position.offset for each in made] == [0, 3]
    assert [each.data["image_grid_thw"].data.tolist() for each in made] == [[1, 2, 4], [1, 2, 2]]


def test_each_request_is_a_copy_of_vllms_own() -> None:
    async def work(core: Core, engine: Engine) -> None:
        asking = [
            asyncio.ensure_future(core.ask(TEXT, (), (), "adapter", 1)),
            asyncio.ensure_future(core.ask(Prompt([4]), (), ())),
        ]
        await asyncio.sleep(0)
        first, second = engine.asked
        assert (first.prompt_token_ids, first.lora_request, first.priority) == ([1, 2, 3], "adapter", 1)
        assert (second.prompt_token_ids, second.lora_request, second.priority) == ([4], None, 0)
        assert first.pooling_params.task == second.pooling_params.task == "embed"
        assert first.request_id != second.request_id
        # The queue is ordered by a clock that never jumps.
        assert time.monotonic() - 60 < first.arrival_time <= second.arrival_time <= time.monotonic()
        rows = {each.request_id: torch.tensor([float(each.request_id)]) for each in engine.asked}
        engine.outputs.put_nowait([engine.answer(own, row) for own, row in reversed(rows.items())])
        assert [row.item() for row in await asyncio.gather(*asking)] == [0.0, 1.0]

    with_core(work)


def test_who_gives_up_ends_the_work_and_disturbs_nobody() -> None:
    async def work(core: Core, engine: Engine) -> None:
        leaving, staying = (asyncio.ensure_future(core.ask(TEXT, (), ())) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        assert engine.aborted == ["0"]
        late = [engine.answer("0", torch.ones(1)), engine.answer("1", torch.zeros(1))]
        engine.outputs.put_nowait(late)
        assert (await staying).item() == 0

    with_core(work)


def test_what_the_engine_gives_up_is_one_requests_error() -> None:
    async def work(core: Core, engine: Engine) -> None:
        bad, good = (asyncio.ensure_future(core.ask(TEXT, (), ())) for _ in range(2))
        await asyncio.sleep(0)
        parts = [engine.answer("0", None, None), engine.answer("0", None, "error")]
        engine.outputs.put_nowait([*parts, engine.answer("1", torch.ones(1))])
        with pytest.raises(QvlError, match=r"gave its input up \(error\)"):
            await bad
        assert (await good).item() == 1

    with_core(work)


def test_its_death_is_told_to_all_who_wait_and_all_who_come() -> None:
    async def work(core: Core, engine: Engine) -> None:
        waiting = [asyncio.ensure_future(core.ask(TEXT, (), ())) for _ in range(2)]
        await asyncio.sleep(0)
        engine.outputs.put_nowait(RuntimeError("dead"))
        for each in waiting:
            with pytest.raises(RuntimeError, match="dead"):
                await each
        with pytest.raises(RuntimeError, match="dead"):
            await core.ask(TEXT, (), ())
        assert len(engine.asked) == 2
        assert str(core.failure) == "dead"
        assert core.ended.is_set()

    with_core(work)


def test_who_waits_at_its_end_is_told() -> None:
    async def work(core: Core, engine: Engine) -> None:
        waiting = asyncio.ensure_future(core.ask(TEXT, (), ()))
        await asyncio.sleep(0)
        core.close()
        core.close()
        for each in (waiting, core.ask(TEXT, (), ())):
            with pytest.raises(Unavailable, match="stopped before it answered"):
                await each
        assert not core.ended.is_set()

    with_core(work)


def test_a_medium_that_would_never_be_encoded_is_refused() -> None:
    async def work(core: Core, engine: Engine) -> None:
        prompt = Prompt([IMAGE] * 9, (Span(0, 9, IMAGE),))
        with pytest.raises(TooLarge, match="a medium of 9 tokens does not fit into one engine step"):
            await core.ask(prompt, [visual("image", 1, 96, 96)], [Place(0, 1, 1)])
        assert not engine.asked

    with_core(work)
