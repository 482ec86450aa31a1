"""Who decodes next, and what becomes of a request whose media take too long."""

from __future__ import annotations

import asyncio
import threading

import pytest

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import MEDIA_NOT_BEGUN, Unprocessable
from qvl.engine.media import MediaLoader
from qvl.engine.media.decoders import TIMEOUT
from qvl.engine.media.threads import Share, Threads
from qvl.engine.protocol import Content
from tests.engine.media.pdfs import endless


def test_one_of_many_media_holds_up_another_no_longer_than_what_it_has_begun(
    forks, picture, encoded, monkeypatch
):
    """They took the only decoder one after the other until each had run out of time."""
    monkeypatch.setattr("qvl.engine.media.decoders.PAGE_SECONDS", 3)
    slow = [Content(images=(endless(seed),), where=f"input[{seed}]") for seed in range(6)]
    good = [Content(images=(encoded(picture(64, 64)),))]

    async def main():
        loader = MediaLoader(MediaConfig(workers=1), Limits(), forks=forks)
        try:
            long, short = (asyncio.create_task(loader.load(each)) for each in (slow, good))
            (outcome,) = await short
            return outcome, long.done(), await long
        finally:
            await loader.close()

    outcome, was_done, late = asyncio.run(main())
    assert isinstance(outcome, tuple) and not was_done
    assert [each.code for each in late] == [TIMEOUT] * 2 + [MEDIA_NOT_BEGUN] * 4
    assert {each.status for each in late} == {422}
    assert [each.param for each in late] == [f"input[{place}].image" for place in range(6)]


def test_a_page_that_takes_too_long_is_told_as_one(refusal, is_refused):
    for content in (Content(images=(endless(1),)), Content(videos=((endless(1), endless(2)),))):
        error = refusal(content, limits=Limits(decode_seconds=0.2))
        is_refused(error, 422, TIMEOUT, "page of a PDF took over 0.2 s", "picture of the page")


def test_a_page_has_less_time_than_a_film(refusal, is_refused, monkeypatch):
    monkeypatch.setattr("qvl.engine.media.decoders.PAGE_SECONDS", 0.2)
    is_refused(refusal(Content(images=(endless(1),))), 422, TIMEOUT, "took over 0.2 s")


def in_turn(count, work):
    """What `work` makes of so many threads."""

    async def main():
        threads = Threads(count)
        try:
            async with asyncio.timeout(120):
                return await work(threads)
        finally:
            await threads.close()

    return asyncio.run(main())


def test_requests_take_turns():
    """The one that comes last waits for none but what runs."""
    order, may_go = [], threading.Event()

    async def work(threads):
        shares = {name: Share(threads) for name in "abc"}

        def job(name):
            assert may_go.wait(60)
            order.append(name)

        jobs = [asyncio.create_task(shares[name].work(lambda name=name: job(name))) for name in "aaaabbc"]
        await asyncio.sleep(0)
        may_go.set()
        await asyncio.gather(*jobs)

    in_turn(1, work)
    assert "".join(order) == "abcabaa"


def test_one_alone_has_all_threads():
    async def work(threads):
        share, together = Share(threads), threading.Barrier(3)
        await asyncio.gather(*(share.work(lambda: together.wait(60)) for _ in range(6)))

    in_turn(3, work)


def test_whoever_gives_up_waiting_leaves_its_turn_to_others():
    may_go, done = threading.Event(), []

    async def work(threads):
        first, second = Share(threads), Share(threads)
        running = asyncio.create_task(first.work(lambda: may_go.wait(60)))
        waiting = [asyncio.create_task(second.work(lambda: done.append(1))) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        may_go.set()
        await running
        waiting[1].cancel()  # its turn may have come just now
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.gather(*(Share(threads).work(lambda: done.append(2)) for _ in range(3)))

    in_turn(1, work)
    assert done[-4:] == [1, 2, 2, 2]


@pytest.mark.parametrize("code", [TIMEOUT, "undecodable_media"])
def test_only_what_runs_out_of_time_ends_a_request(code):
    """One after the other from the first that does, so that no third begins beside the second."""
    begun = []

    async def work(threads):
        share = Share(threads)

        def job(place):
            begun.append(place)
            raise Unprocessable("", code=code)

        jobs = [share.work(lambda place=place: job(place)) for place in range(9)]
        return [error.code for error in await asyncio.gather(*jobs, return_exceptions=True)]

    codes = in_turn(1, work)
    late = [TIMEOUT] * 2 + [MEDIA_NOT_BEGUN] * 7
    assert codes == (late if code == TIMEOUT else [code] * 9)
    assert len(begun) == (2 if code == TIMEOUT else 9)
