"""A fetcher per call, and a resolver with names of its own."""

from __future__ import annotations

import asyncio

import pytest

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import QvlError
from qvl.engine.media.fetch import Fetcher

LOCAL = MediaConfig(workers=2, allow_hosts=("127.0.0.1",))


@pytest.fixture
def fetch():
    def run(url, limits=None, config=LOCAL, **settings):
        """The bytes, or the error."""

        async def main():
            fetcher = Fetcher(config, limits or Limits(fetch_seconds=60), **settings)
            try:
                return await fetcher.fetch(url)
            except QvlError as error:
                return error
            finally:
                await fetcher.close()

        return asyncio.run(main())

    return run


@pytest.fixture
def names():
    def make(table):
        """A resolver that knows these names only, and counts how often it is asked."""

        async def lookup(host, port):
            lookup.asked.append(host)
            answer = table.get(host, [])
            if not answer:
                raise OSError("unknown name")
            return answer.pop(0) if isinstance(answer[0], list) else answer

        lookup.asked = []
        return lookup

    return make
