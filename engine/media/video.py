"""Video file to resized frames: `qwen_vl_utils`' sampling and sizes around PyAV's decoder."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import av
import numpy as np
import torch
from qwen_vl_utils.vision_process import FRAME_FACTOR, calculate_video_frame_range, smart_nframes

from qvl.engine.config import Limits
from qvl.engine.errors import QvlError, Unprocessable, UnsupportedMedia
from qvl.engine.fragments import Span
from qvl.engine.media.container import ACCEPTED, Container, container_of
from qvl.engine.media.demux import Index, check_seconds, check_work, opened, packets, scan
from qvl.engine.media.frames import FILE_BUDGET, resize_frame, video_size
from qvl.engine.media.image import broken, is_image, too_many_pixels
from qvl.engine.media.visual import Pixels, pair_times

FILE_FPS = 1.0
"""Frames per second taken of a video file unless the item says otherwise."""
SEEKABLE = frozenset({"h264", "hevc", "av1", "libdav1d", "vp9"})
"""Decoders of codecs in which each packet shows one frame, so frames can be counted without decoding."""

_WHOLE = Span()
# It warns where more frames a second are asked for than there are; it then takes them all, as asked.
logging.getLogger("qwen_vl_utils").setLevel(logging.ERROR)


def load_video(
    data: bytes, fps: float, max_frames: int, limits: Limits, span: Span = _WHOLE
) -> tuple[Pixels, tuple[float, ...]]:
    """(T, H, W, 3), and the seconds of each pair of frames, from the film's beginning."""
    kind = container_of(data)
    if kind is None:
        raise _not_a_video(data)
    try:
        index = scan(data, kind, limits, whole=span == _WHOLE)
        wanted = _wanted(len(index.pts), index.rate, fps, max_frames, span)
        if span != _WHOLE:
            check_seconds((wanted[-1] - wanted[0]) / index.rate, limits)
        clip = _Clip(data, kind, index, limits)
        pixels = clip.sparse(wanted)
        if pixels is None:
            pixels, seen = clip.all(wanted)
            if seen != len(index.pts):
                # Packets that show no frame (hidden, damaged): the reference counts frames, so sample again.
                wanted = _wanted(seen, index.rate, fps, max_frames, span)
                pixels, seen = clip.all(wanted)
    except QvlError:
        raise
    except Exception as error:  # what a demuxer or decoder raises on hostile bytes is not listed anywhere
        raise broken(error, "video") from error
    return np.stack(pixels), pair_times(wanted, index.rate)


def _not_a_video(data: bytes) -> UnsupportedMedia:
    if is_image(data):
        return UnsupportedMedia(
            "this is an image, not a video file; pass it as `image`, or a list of images as `video`",
            code="wrong_media_kind",
        )
    return UnsupportedMedia(f"not a video in an accepted container ({ACCEPTED}); convert it to MP4")


def _wanted(total: int, rate: float, fps: float, max_frames: int, span: Span) -> list[int]:
    """Indices of the frames that qwen_vl_utils' readers take; `span` is their `video_start`, `video_end`."""
    part = {"video_start": span.start, "video_end": span.end}
    try:
        first, last, frames = calculate_video_frame_range(part, total, rate)
        count = smart_nframes({"fps": fps, "max_frames": max_frames}, total_frames=frames, video_fps=rate)
    except ValueError:
        raise _too_few(total, rate, max_frames, span) from None
    return [int(place) for place in torch.linspace(first, last, count).round().long().tolist()]


def _too_few(total: int, rate: float, max_frames: int, span: Span) -> Unprocessable:
    if span == _WHOLE or max_frames < FRAME_FACTOR:
        return Unprocessable(
            f"a video file needs at least 2 frames and max_frames of at least 2; this has {total} "
            f"and {max_frames}: pass a single frame as `image`",
            code="too_few_frames",
        )
    end = total / rate if span.end is None else span.end
    return Unprocessable(
        f"from {span.start or 0:g} to {end:g} s the film has fewer than 2 frames: it lasts "
        f"{total / rate:g} s, with {rate:g} frames a second",
        code="no_such_part",
    )


class _Clip:
    """One video file to take frames of; each is resized as soon as it is decoded."""

    def __init__(self, data: bytes, kind: Container, index: Index, limits: Limits) -> None:
        self._data = data
        self._kind = kind
        self._index = index
        self._limits = limits

    def all(self, wanted: list[int]) -> tuple[list[Pixels], int]:
        """By decoding every frame: the wanted ones, and how many there were."""
        check_work(self._index, len(self._index.pts))
        places = set(wanted)
        kept: dict[int, Pixels] = {}
        seen = 0
        with opened(self._data, self._kind, self._limits) as (file, stream):
            for place, frame in enumerate(file.decode(stream)):
                self._check(frame)
                seen = place + 1
                if place in places:
                    kept[place] = self._resized(frame, len(wanted))
        return [kept[place] for place in wanted if place in kept], seen

    def sparse(self, wanted: list[int]) -> list[Pixels] | None:
        """By decoding from the keyframe before each wanted frame; None where that is not sure to work."""
        times = self._index.pts
        if self._index.codec not in SEEKABLE or self._index.cut:
            return None
        if None in times or len(set(times)) != len(times):
            return None
        shown = sorted(pts for pts in times if pts is not None)
        targets = {shown[place] for place in wanted}
        needed = _needed(self._index, targets)
        check_work(self._index, len(needed))
        kept: dict[int, Pixels] = {}
        with opened(self._data, self._kind, self._limits) as (file, stream):
            for frame in self._runs(needed, packets(file, stream), stream.codec_context):
                self._check(frame)
                if frame.pts in targets and frame.pts not in kept:
                    kept[frame.pts] = self._resized(frame, len(wanted))
        return [kept[shown[place]] for place in wanted] if targets == kept.keys() else None

    def _runs(
        self, needed: set[int], stream: Iterator[av.Packet], codec: av.VideoCodecContext
    ) -> Iterator[av.VideoFrame]:
        """The frames of the needed packets. The decoder is emptied where packets were left out."""
        previous = -1
        for place, packet in enumerate(stream):
            if place not in needed:
                continue
            if place != previous + 1 and previous >= 0:
                yield from codec.decode(None)
                codec.flush_buffers()
            previous = place
            yield from codec.decode(packet)
        yield from codec.decode(None)

    def _check(self, frame: av.VideoFrame) -> None:
        if frame.width * frame.height > self._limits.image_pixels:
            raise too_many_pixels("video frame", frame.width, frame.height, self._limits)
        if (frame.height, frame.width) != (self._index.height, self._index.width):
            raise Unprocessable("the video changes its frame size; re-encode it", code="frame_sizes")

    def _resized(self, frame: av.VideoFrame, frames: int) -> Pixels:
        pixels = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
        # Phones store upright films lying down, with a note; decord, qwen_vl_utils' usual reader, obeys it.
        upright = np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
        height, width, _ = upright.shape
        return resize_frame(upright, *video_size(height, width, frames, FILE_BUDGET))


def _needed(index: Index, targets: set[int]) -> set[int]:
    """Packets to decode: from its keyframe on to each target. A frame shown before its keyframe (an open
    group of pictures) also draws on the group before."""
    needed: set[int] = set()
    starts = [0]
    for place, pts in enumerate(index.pts):
        if index.keys[place] and place:
            starts.append(place)
        if pts not in targets:
            continue
        start, first = starts[-1], index.pts[starts[-1]]
        if first is not None and pts < first and len(starts) > 1:
            start = starts[-2]
        needed.update(range(start, place + 1))
    return needed
