"""A video file's packets, read from memory only, and what they say before anything is decoded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from qvl.engine.config import Limits
from qvl.engine.errors import TooLarge, Unprocessable, UnsupportedMedia
from qvl.engine.media.container import MP4, Container, missing_bytes
from qvl.engine.media.image import too_many_pixels

MOST_FRAMES = 36_000
"""Frames one video file may hold: ten minutes at 60 a second. A bound of ours, for it bounds the decoding."""
MOST_LISTED = 10 * MOST_FRAMES
"""Likewise, where a part of it is wanted: they are listed. Of no film are more than MOST_FRAMES decoded."""
MOST_PIXELS = MOST_FRAMES * 1920 * 1080
"""Pixels decoded of one video file, frames that are then dropped included."""
CODECS = frozenset(
    {
        *("h264", "hevc", "av1", "libdav1d", "vp8", "libvpx", "vp9", "libvpx-vp9", "theora"),
        *("h263", "flv", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4", "wmv1", "wmv2", "wmv3", "vc1"),
        *("mjpeg", "prores", "dnxhd", "ffv1"),
    }
)
"""Decoders that untrusted bytes may reach; FFmpeg has hundreds."""

_ANY_TITLE: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Titles need not be UTF-8. PyAV 19 (for Python 3.12 and later) takes them all and has no such setting."""


@dataclass(frozen=True, slots=True)
class Index:
    """The packets that show a frame, in decoding order."""

    pts: tuple[int | None, ...]
    keys: tuple[bool, ...]
    cut: bool
    """An edit list cuts packets off, which still have to be decoded for those that follow."""
    rate: float
    """Frames per second."""
    codec: str
    height: int
    width: int


@contextmanager
def opened(data: bytes, kind: Container, limits: Limits) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The demuxer is forced, and whatever it would open besides `data` is refused."""
    with av.open(
        io.BytesIO(data),
        format=kind.demuxer,
        io_open=_no_other_file,
        container_options={"protocol_whitelist": "none", "format_whitelist": kind.demuxer},
        **_ANY_TITLE,
    ) as file:
        if not file.streams.video:
            raise UnsupportedMedia(f"the {kind.label} file has no video stream; is it audio only?")
        stream = file.streams.video[0]
        codec = stream.codec_context
        if codec.name not in CODECS:
            raise UnsupportedMedia(f"video codec {codec.name!r} is not accepted; re-encode it as H.264")
        # One thread each: the pool's workers are the parallelism.
        codec.thread_count = 1
        codec.options = {"max_pixels": str(limits.image_pixels)}
        if codec.width * codec.height > limits.image_pixels:
            raise too_many_pixels("video frame", codec.width, codec.height, limits)
        yield file, stream


def _no_other_file(url: str, flags: int, options: dict[str, str]) -> Any:
    raise Unprocessable("the video refers to another file or URL; send one that holds its own data")


def packets(file: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """All but the closing empty one, which only flushes."""
    return (packet for packet in file.demux(stream) if packet.size)


def scan(data: bytes, kind: Container, limits: Limits, *, whole: bool = True) -> Index:
    """Unless the `whole` is wanted it may be longer than what may be wanted."""
    most = MOST_FRAMES if whole else MOST_LISTED
    if (missing := missing_bytes(data)) > 0:
        raise _truncated(f"{missing:,} bytes")
    with opened(data, kind, limits) as (file, stream):
        if whole and file.duration is not None:
            check_seconds(file.duration / av.time_base, limits)
        everything = [
            (packet.pts, packet.is_keyframe, packet.is_discard) for packet in _bounded(file, stream, most)
        ]
        if kind is MP4 and len(everything) < stream.frames:
            raise _truncated(f"{stream.frames - len(everything)} frames")
        rate = stream.average_rate or stream.guessed_rate
        shown = [(pts, bool(key)) for pts, key, discard in everything if not discard]
        if not rate or not shown:
            raise Unprocessable(
                "the video has no frames, or no frame rate; re-encode it", code="undecodable_media"
            )
        times = [pts for pts, _ in shown if pts is not None]
        if whole and times and stream.time_base is not None:
            check_seconds(float((max(times) - min(times)) * stream.time_base), limits)
        codec = stream.codec_context
        return Index(
            pts=tuple(pts for pts, _ in shown),
            keys=tuple(key for _, key in shown),
            cut=len(shown) < len(everything),
            rate=float(rate),
            codec=codec.name,
            height=codec.height,
            width=codec.width,
        )


def _bounded(file: InputContainer, stream: VideoStream, most: int) -> Iterator[Packet[VideoStream]]:
    for place, packet in enumerate(packets(file, stream)):
        if place == most:
            raise TooLarge(
                f"a video file may hold {most:,} frames; send a shorter one, fewer frames per second, "
                "or a list of frames",
                code="too_many_frames",
            )
        yield packet


def _truncated(what: str) -> Unprocessable:
    return Unprocessable(
        f"the video file is truncated: {what} are missing at its end; send the whole file",
        code="undecodable_media",
    )


def check_work(index: Index, frames: int) -> None:
    pixels = frames * index.height * index.width
    if frames > MOST_FRAMES or pixels > MOST_PIXELS:
        raise TooLarge(
            f"{frames:,} frames of {index.width} x {index.height} would have to be decoded; at most "
            f"{MOST_FRAMES:,} and {MOST_PIXELS:,} pixels of one video file are: scale it down, shorten it, "
            "re-encode it as H.264 with more keyframes, or send frames",
            code="too_many_frames",
        )


def check_seconds(seconds: float, limits: Limits) -> None:
    if seconds > limits.video_seconds:
        raise TooLarge(
            f"a video file may last {limits.video_seconds:g} s (--video-seconds); this lasts "
            f"{seconds:.1f} s: ask for parts of it, as #t=0,60 behind its name, or cut it",
            code="video_too_long",
        )
