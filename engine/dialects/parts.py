"""OpenAI's parts of a content, and what a video may say of its frames.

The model reads videos, then images, then texts: parts are folded into that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal, TypeAlias, get_args

import msgspec

from qvl.engine.dialects.fields import Body, Count
from qvl.engine.errors import BadRequest
from qvl.engine.protocol import Content, PixelLimit, Source, Video

Fps: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=1000)]
Frames: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=64)]
Medium: TypeAlias = Literal["image", "video", "frames"]
LIMITS = ("min_pixels", "max_pixels", "total_pixels")


class Sampling(Body):
    """How many frames of a video file are read."""

    fps: Fps | None = None
    max_frames: Frames | None = None


class Seen(Sampling):
    """And to how many pixels a medium is resized: the server's own numbers alone, which are checked."""

    min_pixels: Count | None = None
    max_pixels: Count | None = None
    total_pixels: Count | None = None
    """Of all frames of a video."""


class Url(Body):
    """An image or video by `data:`, http(s) or file URL, or bare base64."""

    url: str
    detail: str | None = None
    """OpenAI's; the model has one resolution rule, so it changes nothing."""


Media: TypeAlias = str | Url


Kind: TypeAlias = Literal["text", "image_url", "image", "image_base64", "video_url", "video", "video_base64"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Part(Seen):
    """Exactly one of `text`, `image_url`, `image`, `image_base64`, `video_url`, `video` and `video_base64`.

    `type` may be left out: it is the name of that one. `fps` and `max_frames` are of a video, as in
    qwen_vl_utils."""

    type: Kind | None = None
    text: str | None = None
    image_url: Media | None = None
    image: Media | None = None
    image_base64: str | None = None
    video_url: Media | None = None
    video: Media | list[Media] | None = None
    """A file, or the frames of one video."""
    video_base64: str | None = None
    uuid: str | None = None
    """vLLM's name for its cache; the one here goes by content."""

    def kind(self) -> Kind | None:
        """What it holds; None unless that is one thing, and of its type. A body may have half a million."""
        held = (
            *(self.text, self.image_url, self.image, self.image_base64),
            *(self.video_url, self.video, self.video_base64),
        )
        if held.count(None) != len(KINDS) - 1:
            return None
        if self.type is None:
            return next(kind for kind, value in zip(KINDS, held, strict=True) if value is not None)
        return None if getattr(self, self.type) is None else self.type

    def wrong(self, where: str) -> BadRequest:
        """Why it has no kind."""
        given = [name for name in KINDS if getattr(self, name) is not None]
        param: str = self.type or "type"
        text = f"a part of type {self.type} has a `{self.type}`, which is missing"
        if self.type is None:
            text = f"give exactly one of {', '.join(KINDS)}"
        elif self.type in given:
            param = next(name for name in given if name != self.type)
            text = f"a part of type {self.type} has no `{param}`; give another part for it"
        code = "unknown_field" if self.type in given else "missing_field"
        return BadRequest(f"{where}: {text}", param=f"{where}.{param}", code=code)


Parts: TypeAlias = Annotated[list[Part], msgspec.Meta(min_length=1)]


def fold(parts: str | Sequence[Part], where: str) -> Content:
    """Parts in the caller's order to videos, images, texts."""
    if isinstance(parts, str):
        return Content(texts=(parts,), where=where)
    videos: list[Video] = []
    images: list[Source] = []
    texts: list[str] = []
    rates: dict[tuple[float | None, int | None], str] = {}
    limits: list[PixelLimit] = []
    for i, part in enumerate(parts):
        if (kind := part.kind()) is None:
            raise part.wrong(f"{where}[{i}]")
        value = getattr(part, kind)
        if kind.startswith("video"):
            if value == []:
                raise frameless(f"{where}[{i}].{kind}")
            videos.append(video(value))
            limits += _limits(part, "frames" if isinstance(value, list) else "video")
            if not isinstance(value, list):
                rates[part.fps, part.max_frames] = f"{where}[{i}]"
            continue
        if not part.fps is part.max_frames is None:
            raise _misplaced(part, f"{where}[{i}]", ("fps", "max_frames"))
        if kind == "text":
            if not part.min_pixels is part.max_pixels is part.total_pixels is None:
                raise _misplaced(part, f"{where}[{i}]", LIMITS)
            texts.append(value)
        else:
            limits += _limits(part, "image")
            images.append(source(value))
    if len(rates) > 1:
        raise _several(list(rates.values())[1])
    fps, most = next(iter(rates), (None, None))
    return Content(
        videos=tuple(videos),
        images=tuple(images),
        texts=tuple(texts),
        fps=fps,
        max_frames=most,
        limits=_agreeing(limits, where),
        where=where,
    )


def sampled(item: Content, fps: float | None, max_frames: int | None) -> Content:
    """With these where it says nothing of its own."""
    own = (item.fps, item.max_frames)
    filled = (fps if own[0] is None else own[0], max_frames if own[1] is None else own[1])
    return item if filled == own else replace(item, fps=filled[0], max_frames=filled[1])


def limited(item: Content, said: Seen) -> Content:
    """With the limits that are said of all its media; an image has no `total_pixels` beside a video."""
    if said.min_pixels is said.max_pixels is said.total_pixels is None:
        return item
    kinds: dict[Medium, None] = {}
    for each in item.videos:
        kinds["frames" if isinstance(each, tuple) else "video"] = None
    limits = [limit for kind in kinds for limit in _limits(said, kind)]
    if item.images:
        limits += [each for each in _limits(said, "image") if not kinds or each[1] != "total_pixels"]
    return replace(item, limits=_agreeing([*item.limits, *limits], item.where))


def _limits(said: Seen, kind: Medium) -> list[PixelLimit]:
    if said.min_pixels is said.max_pixels is said.total_pixels is None:
        return []
    return [(kind, name, value) for name in LIMITS if (value := getattr(said, name)) is not None]


def _agreeing(limits: Sequence[PixelLimit], where: str) -> tuple[PixelLimit, ...]:
    """Each once; two values of one cannot both be the server's."""
    found = tuple(dict.fromkeys(limits))
    if len({limit[:2] for limit in found}) < len(found):
        raise BadRequest(
            f"{where}: its pixel limits contradict each other", param=where, code="conflicting_fields"
        )
    return found


def video(value: Media | list[Media]) -> Video:
    return tuple(map(source, value)) if isinstance(value, list) else source(value)


def source(value: Media) -> str:
    return value if isinstance(value, str) else value.url


def frameless(where: str) -> BadRequest:
    return BadRequest(f"{where}: a video needs at least one frame", param=where, code="empty_list")


def _misplaced(part: Part, where: str, names: Sequence[str]) -> BadRequest:
    name = next(name for name in names if getattr(part, name) is not None)
    told = f"{where}: a part of type {part.kind()} has no `{name}`"
    return BadRequest(told, param=f"{where}.{name}", code="unsupported_field")


def _several(where: str) -> BadRequest:
    return BadRequest(
        f"{where}: all video files of one item have the same `fps` and `max_frames`; set them in all or "
        "in none",
        param=where,
        code="conflicting_fields",
    )
