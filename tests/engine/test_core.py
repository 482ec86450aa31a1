"""Requests past vLLM's front: what travels, and who is told what. The parity suite asks the real engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import torch

from qvl.engine.core import Core
from qvl.engine.errors import QvlError, TooLarge, Unavailable
from qvl.engine.media import Visual
from qvl.engine.media.block import Place
from qvl.engine.prompt import Prompt, Span
from tests.engine.conftest import turns
from tests.engine.fake_client import FakeClient, dead, output
from tests.parity.conftest import vllm_warnings

IMAGE, VIDEO, START, END = 90, 91, 92, 93
MOST = 8
"""Tokens of a medium that the encoder takes."""
TEXT = Prompt([1, 2, 3])


def with_core(work: Callable[[Core, FakeClient], Awaitable[None]]) -> None:
    async def run() -> None:
        engine = FakeClient(MOST)
        core = Core(engine)
        await core.open(engine, "embed")
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
    """Of the request that arrives."""
    found: list[Any] = []

    async def work(core: Core, engine: FakeClient) -> None:
        await core.send(prompt, visuals, places)
        found.extend(received(engine.asked[0]).mm_features)

    with_core(work)
    return found


def received(request: Any) -> Any:
    """As vLLM's engine process reads it."""
    from vllm.v1.engine import EngineCoreRequest
    from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

    frames = [bytearray(each) for each in MsgpackEncoder().encode(request)]
    return MsgpackDecoder(EngineCoreRequest).decode(frames)


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
    async def work(core: Core, engine: FakeClient) -> None:
        asked = [await core.send(TEXT, (), (), "adapter", 1), await core.send(Prompt([4]), (), ())]
        first, second = engine.asked
        assert (first.prompt_token_ids, first.lora_request, first.priority) == ([1, 2, 3], "adapter", 1)
        assert (second.prompt_token_ids, second.lora_request, second.priority) == ([4], None, 0)
        assert first.pooling_params.task == second.pooling_params.task == "embed"
        assert [first.request_id, second.request_id] == [each.id for each in asked] == ["0", "1"]
        # The queue is ordered by a clock that never jumps.
        assert time.monotonic() - 60 < first.arrival_time <= second.arrival_time <= time.monotonic()
        rows = {each.request_id: torch.tensor([float(each.request_id)]) for each in engine.asked}
        engine.outputs.put_nowait([output(own, row) for own, row in reversed(rows.items())])
        assert [(await each.answer).item() for each in asked] == [0.0, 1.0]

    with_core(work)


def test_who_gives_up_ends_the_work_and_disturbs_nobody() -> None:
    async def work(core: Core, engine: FakeClient) -> None:
        asked = [await core.send(TEXT, (), ()) for _ in range(4)]
        engine.outputs.put_nowait([output("0", torch.ones(1))])
        await asked[0].answer
        waiting = asyncio.ensure_future(asyncio.wait_for(asked[1].answer, 60))
        await asyncio.sleep(0)
        waiting.cancel()  # answered before its task has run again
        engine.outputs.put_nowait([output("1", torch.ones(1))])
        await asyncio.wait([waiting])
        await core.give_up(asked[:3])
        assert engine.aborted == [["2"]]
        assert asked[2].answer.cancelled()
        late = [output(str(number), torch.zeros(1)) for number in range(4)]
        engine.outputs.put_nowait(late)
        assert (await asked[3].answer).item() == 0

    with_core(work)


def test_what_the_engine_gives_up_is_one_requests_error() -> None:
    async def work(core: Core, engine: FakeClient) -> None:
        bad, good = [await core.send(TEXT, (), ()) for _ in range(2)]
        parts = [output("0", None, None), output("0", None, "error")]
        engine.outputs.put_nowait([*parts, output("1", torch.ones(1))])
        with pytest.raises(QvlError, match=r"gave its input up \(error\)"):
            await bad.answer
        assert (await good.answer).item() == 1

    with_core(work)


@pytest.mark.parametrize("error", [dead, lambda: ValueError("not one of its messages")])
def test_its_death_is_told_to_all_who_wait_and_all_who_come(error: Callable[[], Exception]) -> None:
    async def work(core: Core, engine: FakeClient) -> None:
        asked = [await core.send(TEXT, (), ()) for _ in range(2)]
        engine.outputs.put_nowait(error())
        for each in asked:
            with pytest.raises(Unavailable, match="engine process has died"):
                await each.answer
        with pytest.raises(Unavailable, match="engine process has died"):
            await core.send(TEXT, (), ())
        assert len(engine.asked) == 2
        assert core.failure
        assert core.ended.is_set()

    with_core(work)


def test_a_dead_engine_takes_nothing() -> None:
    """What vLLM says where its monitor was faster than the reader."""

    async def work(core: Core, engine: FakeClient) -> None:
        async def refused(_: object) -> None:
            raise dead()

        engine.add_request_async = refused  # type: ignore[method-assign]
        with pytest.raises(Unavailable, match="engine process has died"):
            await core.send(TEXT, (), ())

    with_core(work)


def test_who_asks_a_question_hears_of_its_death() -> None:
    """vLLM waits for ever for the answer to one that was under way."""

    async def work(core: Core, engine: FakeClient) -> None:
        async def told() -> int:
            return 7

        assert await core.told(told()) == 7
        asking = asyncio.ensure_future(core.told(asyncio.sleep(3600)))
        await asyncio.sleep(0)
        engine.outputs.put_nowait(dead())
        with pytest.raises(Unavailable, match="engine process has died"):
            await asking

    with_core(work)


def test_who_waits_at_its_end_is_told() -> None:
    async def work(core: Core, engine: FakeClient) -> None:
        asked = await core.send(TEXT, (), ())
        core.close()
        core.close()
        for each in (asked.answer, core.send(TEXT, (), ())):
            with pytest.raises(Unavailable, match="stopped before it answered"):
                await each
        assert not core.ended.is_set()

    with_core(work)


def test_a_medium_that_would_never_be_encoded_is_refused() -> None:
    async def work(core: Core, engine: FakeClient) -> None:
        prompt = Prompt([IMAGE] * 9, (Span(0, 9, IMAGE),))
        with pytest.raises(TooLarge, match="a medium of 9 tokens does not fit into one engine step"):
            await core.send(prompt, [visual("image", 1, 96, 96)], [Place(0, 1, 1)])
        assert not engine.asked

    with_core(work)


@pytest.mark.parametrize("begun", [True, False])
def test_who_waits_for_the_engine_to_leave_is_told_at_the_end_too(begun: bool) -> None:
    told: list[str] = []

    async def work(core: Core, engine: FakeClient) -> None:
        engine.between_steps.clear()
        core.when_left(lambda: told.append("first"))
        if begun:
            await turns()
        core.when_left(lambda: told.append("second"))
        core.close()
        await turns()
        assert told == (["second", "first"] if begun else ["first", "second"])

    with_core(work)
