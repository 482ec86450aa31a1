"""Pixels that come from decoders into the shared memory, and what has to make way for what."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvl.engine.media import Visual
from qvl.engine.media.arena import Arena
from qvl.engine.media.block import HEADER
from qvl.engine.media.landing import Landing
from tests.engine.media.arenas import BLOCK, FRAME, held, image, read


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena(4 * BLOCK)
    yield made
    made.close()


def come(arena: Arena, seed: int, count: int = 1) -> Visual:
    """The image as a decoder brings it."""
    landing, like = Landing(arena), image(seed, count)
    flat = landing.room(like.pixels.nbytes)
    flat[:] = like.pixels.reshape(-1)
    return landing.visual(Visual("image", flat.reshape(like.pixels.shape), (), like.digest))


def test_what_has_come_is_found_and_not_written_again(arena: Arena) -> None:
    first = come(arena, 1)
    assert arena.find(first.digest) is first
    assert come(arena, 1) is first
    del first
    again = arena.find("image-1-1")
    assert again is not None and again == image(1) and np.array_equal(again.pixels, image(1).pixels)
    assert np.shares_memory(again.pixels, arena._memory._data)
    assert arena.find("image-2-1") is None

    async def go() -> None:
        async with held(arena, again) as places:
            assert read(arena, *places) == ([image(1).pixels.tobytes()], [])

    asyncio.run(go())


def test_what_somebody_waits_for_makes_way_for_a_prompt_only(arena: Arena) -> None:
    waiting = [come(arena, seed) for seed in range(4)]
    late = come(arena, 9)
    assert not np.shares_memory(late.pixels, arena._memory._data)

    async def go() -> None:
        async with held(arena, late) as places:
            assert read(arena, *places) == ([image(9).pixels.tobytes()], [])
            assert np.shares_memory(late.pixels, arena._memory._data)
        assert [np.shares_memory(each.pixels, arena._memory._data) for each in waiting] == [
            False,
            True,
            True,
            True,
        ]
        for seed, each in enumerate(waiting):
            async with held(arena, each) as places:
                assert read(arena, *places) == ([image(seed).pixels.tobytes()], [])

    asyncio.run(go())


def test_what_is_on_its_way_stays_until_it_has_come_or_will_not(arena: Arena) -> None:
    landings = [Landing(arena) for _ in range(4)]
    for landing in landings:
        landing.room(FRAME)

    async def go() -> None:
        waiting = asyncio.create_task(arena.pin((image(9),)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await asyncio.to_thread(landings[0].drop)
        async with asyncio.timeout(60):
            (block,) = await waiting
        assert read(arena, block.place) == ([image(9).pixels.tobytes()], [])

    asyncio.run(go())


def test_a_decoder_that_died_halfway_is_asked_for_other_room(arena: Arena) -> None:
    landing = Landing(arena)
    first = landing.room(FRAME)
    second = landing.room(2 * FRAME)
    assert np.shares_memory(first, second)
    landing.drop()
    assert arena.room(arena.size - HEADER) is not None


@settings(deadline=None, max_examples=40)
@given(
    asked=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 3), st.booleans()), min_size=1, max_size=30),
    width=st.integers(1, 6),
)
def test_many_at_once_never_read_each_other(asked: list[tuple[int, int, bool]], width: int) -> None:
    """Any mix of sizes, from decoders or from the heap, several held at a time, in room for a few of them."""
    made = Arena(4 * BLOCK)
    gate = asyncio.Semaphore(width)

    async def one(seed: int, count: int, decoded: bool) -> None:
        visual = await asyncio.to_thread(come, made, seed, count) if decoded else image(seed, count)
        async with gate, held(made, visual) as places:
            await asyncio.sleep(0)
            assert read(made, *places) == ([image(seed, count).pixels.tobytes()], [])

    async def go() -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(*(one(*each) for each in asked))

    asyncio.run(go())
    made.close()
