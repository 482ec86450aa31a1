"""Images for the shared memory, held there and read as an engine reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
import torch

from qvl.engine.media import Visual
from qvl.engine.media.arena import Arena
from qvl.engine.media.block import HEADER, Place
from qvl.engine.model.pixels import SharedPixels

FRAME = 32 * 32 * 3
BLOCK = FRAME + HEADER
CPU = torch.device("cpu")


def image(seed: int, count: int = 1) -> Visual:
    data = np.random.default_rng(seed).integers(0, 256, (1, 32, 32 * count, 3), dtype=np.uint8)
    return Visual("image", data, (), f"image-{seed}-{count}")


def on_one_thread(go: Callable[[], Awaitable[None]]) -> None:
    """When a thread begins the next it holds nothing of the last; a second thread may, a moment longer."""

    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        await go()

    asyncio.run(run())


@asynccontextmanager
async def held(arena: Arena, *visuals: Visual) -> AsyncIterator[Sequence[Place]]:
    blocks = await arena.pin(visuals)
    yield [block.place for block in blocks]
    arena.unpin(blocks)


def read(arena: Arena, *places: Place) -> tuple[list[bytes], list[int]]:
    table = torch.tensor([[p.offset, p.nbytes, p.generation] for p in places])
    flat, stale = SharedPixels(str(arena.path)).fetch(table, CPU)
    return [each.numpy().tobytes() for each in torch.split(flat, table[:, 1].tolist())], stale
