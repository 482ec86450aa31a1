"""Shared pixels: what is written is what is read, room is shared fairly, nothing stale passes as fresh."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack

import numpy as np
import pytest
import torch

from qvl.engine.errors import ConfigError, TooLarge
from qvl.engine.media import Visual
from qvl.engine.media.arena import Arena
from qvl.engine.media.block import HEADER, Block
from qvl.engine.media.landing import Landing
from qvl.engine.media.memory import Memory
from qvl.engine.model import pixels
from qvl.engine.model.pixels import SharedPixels
from tests.engine.media.arenas import BLOCK, CPU, FRAME, held, image, on_one_thread, read


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena(4 * BLOCK)
    yield made
    made.close()


def test_both_ends_agree_on_the_header() -> None:
    assert pixels.HEADER == HEADER


def test_without_shared_memory_there_is_a_file_and_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a container, whose /dev/shm has 64 MiB."""
    allocate, refused = os.posix_fallocate, []

    def full_at_first(handle: int, offset: int, size: int) -> None:
        if not refused:
            refused.append(handle)
            raise OSError(errno.ENOSPC, "no space")
        allocate(handle, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", full_at_first)
    made = Arena(1 << 20)
    assert "/dev/shm has no room for 1 MiB" in caplog.text
    made.close()


def test_what_is_held_can_be_read(arena: Arena) -> None:
    async def go() -> None:
        visuals = (image(1), image(2, count=2))
        async with held(arena, *visuals) as places:
            assert read(arena, *places) == ([v.pixels.tobytes() for v in visuals], [])

    asyncio.run(go())


def test_the_same_content_is_written_once(arena: Arena) -> None:
    async def go() -> None:
        async with held(arena, image(1), image(1)) as first, held(arena, image(1)) as second:
            assert first[0] == first[1] == second[0]
        async with held(arena, image(1)) as again:
            assert again == second

    asyncio.run(go())


def test_the_least_recently_used_goes_first(arena: Arena) -> None:
    async def go() -> None:
        places = {}
        for seed in (1, 2, 3, 4, 1, 5):
            async with held(arena, image(seed)) as found:
                places.setdefault(seed, found[0])
        async with held(arena, image(1)) as kept:
            assert kept[0] == places[1]
        _, stale = read(arena, places[2], places[3])
        assert stale == [0]

    on_one_thread(go)


def test_a_full_arena_makes_the_next_one_wait_its_turn(arena: Arena) -> None:
    async def go() -> None:
        async with AsyncExitStack() as stack:
            for seed in range(4):
                await stack.enter_async_context(held(arena, image(seed)))
            waiting = asyncio.create_task(arena.pin((image(9),)))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])
        async with held(arena, image(9)) as places:
            assert read(arena, *places)[1] == []

    asyncio.run(go())


def test_room_in_pieces_is_put_together(arena: Arena) -> None:
    """Its first and third block are in and wanted, so that its third one fits nowhere."""

    async def go() -> None:
        for seed in (1, 2, 3, 4):
            async with held(arena, image(seed)):
                pass
        visuals = (image(2), Visual("image", np.zeros((1, 32, 64, 3), np.uint8), (), "wide"), image(4))
        async with asyncio.timeout(60), held(arena, *visuals) as places:
            assert read(arena, *places) == ([v.pixels.tobytes() for v in visuals], [])

    asyncio.run(go())


def test_more_than_all_of_it_is_refused_at_once(arena: Arena) -> None:
    async def go() -> None:
        with pytest.raises(TooLarge, match="--media-memory"):
            await arena.pin((image(1, count=5),))

    asyncio.run(go())


def test_what_was_given_away_is_never_read_again(arena: Arena) -> None:
    """Its old place lies within the pixels of another, which spell nothing but its own old numbers."""

    async def go() -> None:
        async with held(arena, image(1)), held(arena, image(2)) as (old,):
            pass
        # A thread that has brought them may hold them a moment longer, and what somebody wants stays.
        await asyncio.get_running_loop().shutdown_default_executor()
        landing = Landing(arena)
        flat = landing.room(4 * BLOCK - HEADER)
        assert read(arena, old) == ([image(2).pixels.tobytes()], [0])
        flat[:] = 0
        assert read(arena, old)[1] == [0]

    asyncio.run(go())


def test_nothing_makes_way_in_vain(arena: Arena) -> None:
    """For what has no room beside what an engine reads, or none at all."""
    kept = ("image-1-1", "image-3-1", "image-4-1")

    async def go() -> None:
        for seed in (1, 2, 3, 4):
            async with held(arena, image(seed)):
                pass
        async with held(arena, image(2)):
            assert arena.room(3 * FRAME) is None
            waiting = asyncio.create_task(arena.pin((image(9, count=3),)))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            assert arena.room(arena.size) is None
            assert all(arena.find(digest) for digest in kept)
        async with asyncio.timeout(60):
            arena.unpin(await waiting)

    asyncio.run(go())


def test_only_as_much_goes_as_is_needed(arena: Arena) -> None:
    async def go() -> None:
        for seed in (1, 2, 3, 4, 1):
            async with held(arena, image(seed)):
                pass
        wide = Visual("image", np.zeros((1, 32, 64, 3), np.uint8), (), "wide")
        async with held(arena, wide) as (place,):
            assert place.offset == BLOCK
            assert [arena.find(f"image-{seed}-1") is not None for seed in (1, 2, 3, 4)] == [
                True,
                False,
                False,
                True,
            ]

    on_one_thread(go)


def test_large_ones_are_copied_beside_the_loop() -> None:
    """Whoever is given up meanwhile leaves nothing behind."""
    made = Arena(8 << 20)
    large = Visual("image", np.full((1, 1024, 2048, 3), 7, np.uint8), (), "large")

    async def go() -> None:
        asking = asyncio.create_task(made.pin((large, large)))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        async with asyncio.timeout(60), held(made, large, large) as (place, same):
            assert place == same
            assert read(made, place) == ([large.pixels.tobytes()], [])
        async with asyncio.timeout(60), held(made, Visual("image", large.pixels + 1, (), "other")):
            pass

    asyncio.run(go())
    made.close()


def test_one_that_was_cancelled_has_its_turn_until_its_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it copies would be moved and given away by the next one."""
    made, may_go, begun = Arena(8 << 20), threading.Event(), []
    settled = Memory.settled

    def slow(self: Memory, block: Block, visual: Visual) -> Block:
        begun.append(visual.digest)
        assert may_go.wait(60)
        return settled(self, block, visual)

    monkeypatch.setattr(Memory, "settled", slow)

    async def go() -> None:
        first = asyncio.create_task(made.pin((image(1),)))
        while not begun:  # noqa: ASYNC110 - a thread begins it
            await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(made.pin((image(2),)))
        await asyncio.sleep(0.1)
        assert begun == ["image-1-1"]
        may_go.set()
        async with asyncio.timeout(60):
            made.unpin(await second)
        made._take_back()
        assert [block.pins for block in made._memory.blocks.values()] == [0, 0]

    asyncio.run(go())
    made.close()


def test_no_room_on_disk_is_a_setting_to_change() -> None:
    with pytest.raises(ConfigError, match="--media-memory"):
        Arena(1 << 60)


def test_what_is_mapped_outlives_the_file(arena: Arena) -> None:
    async def go() -> None:
        reader = SharedPixels(str(arena.path))
        arena.close()
        async with held(arena, image(3)) as (place,):
            table = torch.tensor([[place.offset, place.nbytes, place.generation]])
            flat, _ = reader.fetch(table, CPU)
            assert flat.numpy().tobytes() == image(3).pixels.tobytes()

    asyncio.run(go())
