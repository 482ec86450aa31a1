"""What was decoded once is not decoded again, within bounds; and one request's pixels are bounded."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import QvlError, Unprocessable
from qvl.engine.media import MediaLoader, Visual
from qvl.engine.media.arena import Arena
from qvl.engine.media.block import HEADER
from qvl.engine.media.decoders import GivenUp
from qvl.engine.media.single_flight import SingleFlight, by_anyone
from qvl.engine.protocol import Content

ONE = 64 * 64 * 3 + HEADER


def lookups(forks, contents, size, keep=True):
    """Hit or miss of each content, loaded one after the other; and what came out, if it is to be kept."""
    seen, visuals = [], []

    async def main():
        loader = MediaLoader(MediaConfig(workers=1), Limits(), seen.append, forks, Arena(size))
        for content in contents:
            (outcome,) = await loader.load([content])
            visuals.extend([outcome] * keep)
            del outcome
        await loader.close()

    asyncio.run(main())
    return seen, visuals


def images(encoded, picture, *seeds):
    return [Content(images=(encoded(picture(64, 64, seed=seed)),)) for seed in seeds]


def test_the_same_bytes_are_decoded_once(forks, encoded, picture):
    seen, visuals = lookups(forks, images(encoded, picture, 1, 2, 1), size=10 * ONE)
    assert seen == [False, False, True]
    assert visuals[0][0] is visuals[2][0]


def test_the_least_recently_used_goes_first(forks, encoded, picture):
    contents = images(encoded, picture, 1, 2, 1, 3, 1, 2)
    seen, _ = lookups(forks, contents, size=2 * ONE, keep=False)
    assert seen == [False, False, True, False, True, False]


def test_what_somebody_waits_for_stays(forks, encoded, picture):
    contents = images(encoded, picture, 1, 2, 3, 1, 2, 3)
    seen, visuals = lookups(forks, contents, size=2 * ONE)
    assert seen == [False, False, False, True, True, False]
    assert np.array_equal(visuals[2][0].pixels, visuals[5][0].pixels)


def test_nothing_is_looked_up_unless_it_is_wanted(forks, encoded, picture):
    (content,) = images(encoded, picture, 1)
    seen = []

    async def main():
        config = MediaConfig(workers=1, media_cache=False)
        loader = MediaLoader(config, Limits(), seen.append, forks, Arena(10 * ONE))
        (first,), (second,) = [await loader.load([content]) for _ in range(2)]
        await loader.close()
        return first[0], second[0]

    first, second = asyncio.run(main())
    assert seen == [False, False]
    assert np.array_equal(first.pixels, second.pixels)


def test_pixels_are_decoded_to_where_the_engines_read_them(forks, encoded, picture, film):
    arena = Arena(16 << 20)

    async def main():
        loader = MediaLoader(MediaConfig(workers=2), Limits(), forks=forks, arena=arena)
        (outcome, bad) = await loader.load(
            [Content(images=(encoded(picture(64, 64)),), videos=(film(count=4),)), Content(images=(b"bad",))]
        )
        await loader.close()
        return outcome, bad

    visuals, bad = asyncio.run(main())
    assert isinstance(bad, QvlError)
    assert all(np.shares_memory(visual.pixels, arena._memory._data) for visual in visuals)
    del visuals
    assert arena.room(arena.size - HEADER) is not None  # nothing is left behind


def test_nothing_is_kept_without_room(forks, encoded, picture):
    seen, _ = lookups(forks, images(encoded, picture, 1, 1), size=ONE - 1)
    assert seen == [False, False]


def test_a_film_is_kept_by_its_settings(forks, film):
    clip = film(count=30)
    wanted = [Content(videos=(clip,), fps=fps) for fps in (1.0, 2.0, 1.0)]
    seen, visuals = lookups(forks, wanted, size=1 << 30)
    assert seen == [False, False, True]
    assert visuals[0][0] is visuals[2][0]


def test_an_error_is_not_kept(forks, encoded, picture):
    seen, visuals = lookups(forks, [Content(images=(b"no image",))] * 2, size=1 << 20)
    assert seen == [False, False]
    assert all(isinstance(each, QvlError) for each in visuals)


def test_what_is_being_decoded_is_waited_for(forks, encoded, picture):
    seen = []
    (content,) = images(encoded, picture, 1)

    async def main():
        loader = MediaLoader(MediaConfig(workers=4), Limits(), seen.append, forks, Arena(10 * ONE))
        outcomes = await asyncio.gather(*(loader.load([content]) for _ in range(4)))
        await loader.close()
        return outcomes

    ((first,), *others) = asyncio.run(main())
    assert sorted(seen) == [False, True, True, True]
    assert all(other[0] is first[0] for (other,) in others)


def while_decoding(outcome):
    """What a second thread finds of bytes that a first is decoding, once that has ended in `outcome`."""
    arena, entered, may_go = Arena(1 << 20), threading.Event(), threading.Event()
    flights = SingleFlight(arena, lambda hit: None)

    def decode(data, digest):
        entered.set()
        assert may_go.wait(60)
        if isinstance(outcome, Exception):
            raise outcome
        block = arena.room(32 * 32 * 3)
        return arena.keep(block, Visual("image", arena.flat(block).reshape(1, 32, 32, 3), (), digest))

    with ThreadPoolExecutor(1) as threads:
        one = threads.submit(flights.visual, b"x", (), decode)
        assert entered.wait(60)
        two = flights.visual(b"x", (), decode)
        assert isinstance(two, Future) and not two.done()
        may_go.set()
        return one, two


def test_nobody_waits_in_a_thread_for_another():
    one, two = while_decoding(None)
    assert two.result(60) is one.result()


def test_those_who_wait_get_the_error_too():
    one, two = while_decoding(Unprocessable("broken"))
    assert isinstance(one.exception(), Unprocessable)
    assert two.exception(60) is one.exception()


def test_what_was_given_up_is_decoded_by_one_of_those_who_wait():
    _, given_up = while_decoding(GivenUp("left"))
    _, decoded = while_decoding(None)
    answers = [given_up, decoded.result(60)]

    async def load():
        return answers.pop(0)

    assert asyncio.run(by_anyone(load)) is decoded.result()


def test_the_pixels_of_one_request_are_bounded(load, encoded, picture):
    contents = images(encoded, picture, 1, 2, 3)
    outcomes = load(*contents, limits=Limits(request_pixels=2 * 64 * 64))
    failed = [outcome for outcome in outcomes if isinstance(outcome, QvlError)]
    assert [(each.status, each.code) for each in failed] == [(413, "too_many_request_pixels")]
    again = load(*contents[:1] * 5, limits=Limits(request_pixels=64 * 64))
    assert not any(isinstance(outcome, QvlError) for outcome in again)


def test_all_calls_for_one_request_have_one_quota(forks, encoded, picture):
    """Pairs are loaded one by one: together they are allowed what one request is."""
    contents = images(encoded, picture, 1, 2, 3)

    async def main():
        loader = MediaLoader(MediaConfig(workers=2), Limits(request_pixels=2 * 64 * 64), forks=forks)
        quota = loader.quota()
        try:
            alone = [await loader.load([each]) for each in contents]
            return alone, [await loader.load([each], quota) for each in (contents[0], *contents)]
        finally:
            await loader.close()

    alone, together = asyncio.run(main())
    assert not any(isinstance(outcome, QvlError) for (outcome,) in alone)
    # Equal ones count once.
    assert [isinstance(outcome, QvlError) for (outcome,) in together] == [False, False, False, True]
