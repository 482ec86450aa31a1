"""From the sources of many items to their pixels: each distinct source once, off the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeAlias, TypeVar

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import QvlError, TooLarge, Unavailable
from qvl.engine.fragments import page_of, span_of
from qvl.engine.machine import cores
from qvl.engine.media.arena import Arena, Lookup
from qvl.engine.media.counts import check, check_pixels, name_of
from qvl.engine.media.decoders import Decoders, ForkServer, memory
from qvl.engine.media.fetch import Fetcher
from qvl.engine.media.frames import MAX_FRAMES, Frame, join_frames, sampled
from qvl.engine.media.landing import Landing
from qvl.engine.media.quota import Quota
from qvl.engine.media.single_flight import Key, SingleFlight, by_anyone
from qvl.engine.media.source import is_remote, read
from qvl.engine.media.threads import Threads
from qvl.engine.media.video import FILE_FPS
from qvl.engine.media.visual import Kind, Visual, fingerprint
from qvl.engine.media.wire import Job
from qvl.engine.protocol import Content, Source, Video

T = TypeVar("T")
Task: TypeAlias = asyncio.Task[T | QvlError]

FETCHES = 48
"""URLs of one loader in flight; each holds its bytes until they are decoded."""
AT_ONCE = 8
"""Items whose media are begun before other requests get a turn."""


class MediaLoader:
    """Owns the decoding processes and the connections; closed once.

    Each decoding process has a thread here, which reads, hashes, looks up, and waits for it.
    """

    def __init__(
        self,
        config: MediaConfig,
        limits: Limits,
        lookup: Lookup = lambda hit: None,
        forks: ForkServer | None = None,
        arena: Arena | None = None,
    ) -> None:
        """`forks` stays the caller's to close; None: one of its own. `arena`: where pixels are to be."""
        self._config, self._limits = config, limits
        self.pixels = config.min_pixels, config.max_pixels
        self._fetcher = Fetcher(config, limits)
        self.arena = arena
        self.flights = SingleFlight(arena if config.media_cache else None, lookup)
        self._forks, self._owned = forks or ForkServer(memory(limits)), forks is None
        self.decoders = Decoders(self._forks)
        self.threads = Threads(config.workers or cores())
        self._fetching = asyncio.Semaphore(FETCHES)
        self._closed = False

    async def ready(self) -> None:
        """Until the decoding processes can be had; they start by themselves meanwhile."""
        await asyncio.to_thread(self._forks.wait)

    def quota(self) -> Quota:
        return Quota(self.threads)

    async def load(
        self, contents: Sequence[Content], quota: Quota | None = None
    ) -> list[tuple[Visual, ...] | QvlError]:
        """Per content, in prompt order: its videos, then its images. An error concerns that content only.
        `quota`: of the request that they are a part of; None: they are all of it.

        Raises Unavailable when it is closed meanwhile.
        """
        stop = threading.Event()
        items: list[asyncio.Task[tuple[Visual, ...] | QvlError]] = []
        try:
            async with asyncio.TaskGroup() as group:
                batch = _Batch(self, self._limits, group, stop, quota or self.quota())
                for content in contents:
                    items.append(group.create_task(batch.item(content)))
                    if len(items) % AT_ONCE == 0:
                        await asyncio.sleep(0)
        except* RuntimeError:  # of the client and the threads, which take no more
            if not self._closed:
                raise
        finally:
            stop.set()  # a long video still decoding for a request that was cancelled
        if self._closed:
            raise Unavailable("the engine is stopping", code="draining")
        return [item.result() for item in items]

    async def close(self) -> None:
        self._closed = True
        await self._fetcher.close()
        await self.threads.close()
        self.decoders.close()
        if self._owned:
            self._forks.close()

    async def fetched(self, source: Source, decode: Callable[[bytes], T], quota: Quota) -> T:
        """The bytes of `source`, decoded in a thread."""
        if not is_remote(source):
            return await quota.share.work(lambda: decode(read(source, self._config, self._limits)))
        async with quota.turn, self._fetching:
            data = await self._fetcher.fetch(str(source))
            return await quota.share.work(lambda: decode(data))


class _Batch:
    """One call of `load`: equal sources with equal settings share one task."""

    def __init__(
        self,
        loader: MediaLoader,
        limits: Limits,
        group: asyncio.TaskGroup,
        stop: threading.Event,
        quota: Quota,
    ) -> None:
        self._loader = loader
        self._limits = limits
        self._group = group
        self._stop = stop
        self._quota = quota
        self._tasks: dict[Key, asyncio.Task[Any]] = {}

    async def item(self, content: Content) -> tuple[Visual, ...] | QvlError:
        try:
            check(content, self._limits)
            check_pixels(content, self._loader.pixels)
            named = [
                (name_of(content, "video", place), self._video(video, content))
                for place, video in enumerate(content.videos)
                if video != ()
            ] + [
                (name_of(content, "image", place), self._image(image))
                for place, image in enumerate(content.images)
            ]
            return tuple([_result(await task, name) for name, task in named])
        except QvlError as error:
            return error.bare()

    def _image(self, image: Source) -> Task[Visual]:
        async def load() -> Visual:
            page, pixels = page_of(image), self._loader.pixels
            job = Job("image", self._limits, page=page, pixels=pixels)
            return await self._file(image, ("image", page, pixels), job)

        return self._once(("image", image), load)

    def _video(self, video: Video, content: Content) -> Task[Visual]:
        if isinstance(video, tuple):
            return self._once(("frames", video), lambda: self._counted(self._frames(video)))
        fps, max_frames = content.fps or FILE_FPS, content.max_frames or MAX_FRAMES

        async def load() -> Visual:
            span = span_of(video)
            job = Job("video", self._limits, fps=fps, max_frames=max_frames, span=span)
            return await self._file(video, ("video", fps, max_frames, span), job)

        return self._once(("video", video, fps, max_frames), load)

    async def _file(self, source: Source, settings: Key, job: Job) -> Visual:
        def decode(data: bytes) -> Visual | Future[Visual]:
            return self._loader.flights.visual(data, settings, partial(self._visual, job))

        return await self._counted(by_anyone(lambda: self._fetched(source, decode)))

    def _visual(self, job: Job, data: bytes, digest: str) -> Visual:
        kind: Kind = "image" if job.kind == "image" else "video"
        landing = Landing(self._loader.arena)
        try:
            done, pixels = self._loader.decoders.decode(job, data, self._stop.is_set, landing.room)
            return landing.visual(Visual(kind, pixels, done.timestamps, digest))
        finally:
            landing.drop()

    async def _counted(self, load: Coroutine[Any, Any, Visual]) -> Visual:
        """One request must not fill the memory with pixels, however small its body."""
        visual = await load
        if self._quota.bytes_with(visual.digest, visual.pixels.nbytes) > self._limits.request_pixels * 3:
            raise TooLarge(
                f"the images and videos of this request are over {self._limits.request_pixels} pixels "
                "after resizing (--request-pixels): send them in several requests",
                code="too_many_request_pixels",
            )
        return visual

    async def _frames(self, video: tuple[Source, ...]) -> Visual:
        places = sampled(len(video))
        tasks = [self._frame(video[place], len(places)) for place in places]
        frames = [_result(await task, f".frames[{place}]") for place, task in zip(places, tasks, strict=True)]
        return await self._quota.share.work(partial(self._joined, frames))

    def _joined(self, frames: Sequence[Frame]) -> Visual:
        landing = Landing(self._loader.arena)
        try:
            return landing.visual(join_frames(frames, landing.room))
        finally:
            landing.drop()

    def _frame(self, frame: Source, count: int) -> Task[Frame]:
        async def load() -> Frame:
            job = Job("frame", self._limits, count=count, page=page_of(frame))

            def decode(data: bytes) -> Frame:
                done, pixels = self._loader.decoders.decode(job, data, self._stop.is_set)
                return Frame(pixels, done.rounded, fingerprint(data, job.page))

            return await self._fetched(frame, decode)

        return self._once(("frame", frame, count), load)

    async def _fetched(self, source: Source, decode: Callable[[bytes], T]) -> T:
        return await self._loader.fetched(source, decode, self._quota)

    def _once(self, key: Key, load: Callable[[], Coroutine[Any, Any, T]]) -> Task[T]:
        if key not in self._tasks:
            self._tasks[key] = self._group.create_task(_settled(load()))
        return self._tasks[key]


async def _settled(load: Coroutine[Any, Any, T]) -> T | QvlError:
    """A shared task must not raise: its error goes to each item that uses it, under that item's name."""
    try:
        return await load
    except QvlError as error:
        return error.bare()


def _result(outcome: T | QvlError, name: str) -> T:
    if isinstance(outcome, QvlError):
        raise type(outcome)(outcome.message, param=name + (outcome.param or ""), code=outcome.code)
    return outcome
