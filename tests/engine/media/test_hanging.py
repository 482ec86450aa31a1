"""What hangs while `MediaLoader.load` waits for it: who waits with it, and what a stop makes of that."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import QvlError, Unavailable
from qvl.engine.media import MediaLoader
from qvl.engine.media.decoders import Decoders
from qvl.engine.media.loader import FETCHES
from qvl.engine.protocol import Content


def test_what_is_closed_meanwhile_is_unavailable(forks, server, picture, encoded, monkeypatch):
    """One that decodes, one that waits for a thread, one that fetches and one that is yet to fetch."""
    urls = [server.route(f"/{i}", lambda handler: server.released.wait()) for i in range(FETCHES)]
    long, good = (Content(images=(encoded(picture(64, 64, seed=seed)),)) for seed in range(2))
    config = MediaConfig(workers=1, allow_hosts=("127.0.0.1",))
    decoding, decode = threading.Event(), Decoders.decode

    async def main():
        loader = MediaLoader(config, Limits(), forks=forks)

        def until_closed(*asked):
            decoding.set()
            while not loader._closed:
                time.sleep(0.01)
            return decode(*asked)

        monkeypatch.setattr(Decoders, "decode", until_closed)
        fetched = [Content(images=(url,)) for url in urls]
        asked = [asyncio.create_task(loader.load(each)) for each in ([long], [good], fetched)]
        await asyncio.to_thread(decoding.wait)
        await asyncio.to_thread(server.asked.wait)
        await loader.close()
        server.released.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    failures = asyncio.run(main())
    assert [(type(each), each.code) for each in failures] == [(Unavailable, "draining")] * 3


@pytest.mark.parametrize("what", ["server", "name server"])
def test_a_host_that_hangs_holds_up_nobody_else(forks, server, picture, encoded, monkeypatch, what):
    """One request asks it for all that may be fetched at once; another wants one picture of another host."""
    look_up = socket.getaddrinfo

    def looked_up(name, *rest, **options):
        if not name.endswith(".test"):
            return look_up(name, *rest, **options)
        server.asked.set()
        server.released.wait()
        raise OSError("unknown name")

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    good = server.add("/good.png", encoded(picture(32, 32))).replace("127.0.0.1", "localhost")
    bad = [
        server.route(f"/{i}", lambda handler: server.released.wait())
        if what == "server"
        else f"http://{i}.test/"
        for i in range(FETCHES)
    ]
    config = MediaConfig(workers=2, allow_hosts=("127.0.0.1", "localhost"))

    async def main():
        loader = MediaLoader(config, Limits(fetch_seconds=600), forks=forks)
        stuck = asyncio.create_task(loader.load([Content(images=(url,)) for url in bad]))
        await asyncio.to_thread(server.asked.wait)
        try:
            async with asyncio.timeout(60):
                (outcome,) = await loader.load([Content(images=(good,))])
            assert not stuck.done()
        finally:
            server.released.set()
            stuck.cancel()
            await asyncio.wait([stuck])
            await loader.close()
        return outcome

    assert not isinstance(asyncio.run(main()), QvlError)
