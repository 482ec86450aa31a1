"""Bodies that come compressed, though none was asked for."""

from __future__ import annotations

import asyncio
import gzip
import random

import httpx
import pytest

from qvl.engine.media.fetch import _plain


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20])
def test_what_is_inflated_in_steps_is_whole(size, server, fetch):
    body = random.Random(size).randbytes(1000) * (size // 1000) + b"x" * (size % 1000)
    assert fetch(server.add("/a", gzip.compress(body), Content_Encoding="gzip")) == body


def test_what_follows_a_compressed_body_is_not_read():
    read = []

    async def body():
        yield gzip.compress(b"x" * 1000)
        for place in range(1000):
            read.append(place)
            yield bytes(65536)

    async def whole():
        response = httpx.Response(200, headers={"content-encoding": "gzip"}, content=body())
        return b"".join([part async for part in _plain(response)])

    assert asyncio.run(whole()) == b"x" * 1000 and not read


def test_a_large_compressed_body_lets_others_have_turns():
    async def body():
        yield gzip.compress(bytes(40 << 20))

    async def read():
        response = httpx.Response(200, headers={"content-encoding": "gzip"}, content=body())
        return [len(part) async for part in _plain(response)]

    async def main():
        task, turns = asyncio.create_task(read()), 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        return task.result(), turns

    sizes, turns = asyncio.run(main())
    assert sum(sizes) == 40 << 20 and max(sizes) <= 1 << 20 and turns > 40
