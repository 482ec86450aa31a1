"""Order, sharing, cancellation and bounds of `MediaLoader.load`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import QvlError
from qvl.engine.media import MediaLoader
from qvl.engine.protocol import Content

LOCAL = MediaConfig(workers=2, allow_hosts=("127.0.0.1",))


def test_order_is_videos_then_images(load, picture, encoded, film):
    images = [encoded(picture(32 * (place + 2), 64, seed=place)) for place in range(4)]
    clip = film(count=6)
    contents = [
        Content(images=tuple(images), videos=(clip, (images[0],))),
        Content(texts=("no media",)),
        Content(images=(images[2], images[1])),
    ]
    first, second, third = load(*contents)
    assert [visual.kind for visual in first] == ["video", "video", "image", "image", "image", "image"]
    assert [visual.pixels.shape[2] for visual in first[2:]] == [64, 96, 128, 160]
    assert first[0].pixels.shape[0] == 4 and first[1].pixels.shape[0] == 2
    assert second == ()
    assert [visual.pixels.shape[2] for visual in third] == [128, 96]


def test_no_contents(load):
    assert load() == []
    assert load(Content(texts=("a",)), Content()) == [(), ()]


def test_an_error_concerns_its_content_only(load, picture, encoded):
    good = encoded(picture(64, 64))
    outcomes = load(
        Content(images=(good,), where="input[0]"),
        Content(images=(good, b"bad", b"worse"), where="input[1]"),
        Content(images=(good,), videos=((b"bad",),), where="input[2]"),
        Content(images=(b"bad",), where="query"),
        Content(images=(good,), where="input[4]"),
    )
    assert [type(outcome) is tuple for outcome in outcomes] == [True, False, False, False, True]
    assert [outcome.param for outcome in outcomes[1:4]] == [
        "input[1].image[1]",
        "input[2].video.frames[0]",
        "query.image",
    ]
    assert outcomes[1].message == outcomes[3].message


def test_equal_sources_are_fetched_and_decoded_once(server, load, picture, encoded):
    url = server.add("/a.png", encoded(picture(64, 64)))
    bad = server.add("/bad.png", b"text")
    content = Content(images=(url, url))
    outcomes = load(content, content, Content(images=(url,)), *(Content(images=(bad,)),) * 3, config=LOCAL)
    assert sorted(path for path, _ in server.seen) == ["/a.png", "/bad.png"]
    visuals = [visual for outcome in outcomes[:3] for visual in outcome]
    assert len({id(visual.pixels) for visual in visuals}) == 1
    assert [outcome.status for outcome in outcomes[3:]] == [415] * 3


def test_equal_videos_share_unless_their_settings_differ(load, film, picture, encoded):
    clip = film(count=60)
    same, other, fewer, again = load(
        Content(videos=(clip,)), Content(videos=(clip,), fps=2.0), Content(videos=(clip,), max_frames=4),
        Content(videos=(clip,), fps=1.0, max_frames=64),
    )  # fmt: skip
    assert same[0] is again[0]
    assert len({same[0].digest, other[0].digest, fewer[0].digest}) == 3
    frames = tuple(encoded(picture(64, 64, seed=seed)) for seed in range(4))
    first, second = load(Content(videos=(frames,)), Content(videos=(frames,), max_frames=2))
    assert first[0] is second[0]


def test_an_image_and_a_video_of_the_same_bytes_differ(load, picture, encoded):
    data = encoded(picture(64, 64))
    ((video, image),) = load(Content(images=(data,), videos=((data,),)))
    assert video.digest != image.digest


def test_a_loader_serves_calls_at_once_and_one_after_the_other(forks, picture, encoded):
    data = [encoded(picture(64, 64, seed=seed)) for seed in range(20)]

    async def main():
        loader = MediaLoader(MediaConfig(workers=2), Limits(), forks=forks)
        contents = [Content(images=(item,)) for item in data]
        alone = await loader.load(contents)
        together = await asyncio.gather(*(loader.load([content]) for content in contents))
        await loader.close()
        return [[item[0].digest for item in items] for items in (alone, [item for (item,) in together])]

    alone, together = asyncio.run(main())
    assert alone == together and len(set(alone)) == 20


def test_many_images_keep_to_the_threads(forks, picture, encoded):
    """2 000 images: no more threads than configured, and the event loop stays awake."""
    data = [encoded(picture(40, 40, seed=seed), "BMP") for seed in range(200)]

    async def main():
        loader = MediaLoader(MediaConfig(workers=2), Limits(), forks=forks)
        task = asyncio.create_task(
            loader.load([Content(images=(data[place % 200] + bytes(place),)) for place in range(2000)])
        )
        names, turns = set(), 0
        while not task.done():
            names |= {thread.name for thread in threading.enumerate() if thread.name.startswith("qvl-media")}
            turns += 1
            await asyncio.sleep(0.001)
        outcomes = await task
        await loader.close()
        return outcomes, names, turns

    outcomes, names, turns = asyncio.run(main())
    assert len(outcomes) == 2000 and not any(isinstance(outcome, QvlError) for outcome in outcomes)
    assert len(names) <= 2 and turns > 10


def test_cancelling_leaves_nothing_behind(forks, server, picture, encoded, film):
    hanging = server.route("/hang", lambda handler: server.released.wait())
    good = encoded(picture(64, 64))
    long = film(count=3000, size=(320, 240), codec="mpeg4", still=True)

    async def main():
        loader = MediaLoader(LOCAL, Limits(fetch_seconds=60), forks=forks)
        contents = [
            Content(images=(hanging, good)),
            Content(videos=(long,), fps=1.0),
            Content(images=(good,)),
        ]
        task = asyncio.create_task(loader.load(contents))
        await asyncio.to_thread(server.asked.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        (again,) = await loader.load([Content(images=(good,))])
        assert not isinstance(again, QvlError)
        await loader.close()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("qvl-media")]

    asyncio.run(main())


def test_a_deadline_around_load(forks, server):
    hanging = server.route("/hang", lambda handler: server.released.wait())

    async def main():
        loader = MediaLoader(LOCAL, Limits(fetch_seconds=60), forks=forks)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await loader.load([Content(images=(hanging,))])
        await loader.close()

    asyncio.run(main())


def test_more_urls_than_fetch_slots(server, load, picture, encoded):
    urls = [server.add(f"/{place}", encoded(picture(32, 32))) for place in range(100)]
    assert all(
        type(outcome) is tuple for outcome in load(*(Content(images=(url,)) for url in urls), config=LOCAL)
    )


def test_uvloop(forks, picture, encoded):
    uvloop = pytest.importorskip("uvloop")

    async def main():
        loader = MediaLoader(MediaConfig(workers=1), Limits(), forks=forks)
        try:
            private = Content(images=("http://127.0.0.1/", "http://localhost/"))
            return await loader.load([Content(images=(encoded(picture(64, 64)),)), private])
        finally:
            await loader.close()

    good, refused = uvloop.run(main())
    assert good[0].grid == (1, 4, 4) and refused.code == "url_forbidden"


def test_a_visual_compares_without_its_pixels(load, picture, encoded):
    data = encoded(picture(64, 64))
    first, second = load(Content(images=(data,)))[0][0], load(Content(images=(data,)))[0][0]
    assert first == second and hash(first) == hash(second) and first.pixels is not second.pixels


def test_nothing_is_printed_and_the_nouns_stay_light():
    code = (
        "import sys; import qvl.engine.config, qvl.engine.errors, qvl.engine.protocol;"
        "heavy = {'torch', 'torchvision', 'qwen_vl_utils', 'av', 'PIL', 'httpx'} & set(sys.modules);"
        "assert not heavy, heavy; import qvl.engine.media; assert 'vllm' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
