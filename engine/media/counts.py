"""How many media an item may have, and how each of them is called in errors."""

from __future__ import annotations

import math

from qwen_vl_utils.vision_process import VIDEO_MAX_TOKEN_NUM, VIDEO_MIN_TOKEN_NUM

from qvl.engine.config import Limits
from qvl.engine.errors import BadRequest, TooLarge
from qvl.engine.media.frames import FACTOR, FILE_BUDGET, LIST_BUDGET, MAX_FRAMES
from qvl.engine.media.visual import Kind
from qvl.engine.protocol import Content


def name_of(content: Content, kind: Kind, place: int) -> str:
    several = len(content.videos if kind == "video" else content.images) > 1
    return f"{content.where}.{kind}[{place}]" if several else f"{content.where}.{kind}"


def check_pixels(content: Content, of_images: tuple[int, int]) -> None:
    """Raises BadRequest for a limit that is not the one here: `of_images`, or qwen_vl_utils' for a video."""
    own: dict[tuple[str, str], int] = {
        ("image", "min_pixels"): of_images[0],
        ("image", "max_pixels"): of_images[1],
        ("video", "min_pixels"): VIDEO_MIN_TOKEN_NUM * FACTOR**2,
        ("video", "max_pixels"): VIDEO_MAX_TOKEN_NUM * FACTOR**2,
        ("video", "total_pixels"): int(FILE_BUDGET),
        # Listed frames are resized twice, by different numbers: none is both.
        ("frames", "total_pixels"): LIST_BUDGET,
    }
    for kind, name, value in content.limits:
        if value != (here := own.get((kind, name))):
            what = {"image": "an image", "video": "a video file", "frames": "a list of frames"}[kind]
            raise BadRequest(
                f"`{name}` cannot be set: of {what} it is {here} here, not {value}"
                if here
                else f"`{name}` cannot be set: {what} has no such number",
                param=f"{content.where}.{name}",
                code="unsupported_field",
            )


def check(content: Content, limits: Limits) -> None:
    """The counts of one item, before any byte of it is read."""
    for kind, count, most in (
        ("image", len(content.images), limits.images),
        ("video", len(content.videos), limits.videos),
    ):
        if count > most:
            raise TooLarge(
                f"one item may have {most} {kind}s (--{kind}s); this has {count}: "
                "split it into several items",
                param=f"{content.where}.{kind}",
                code=f"too_many_{kind}s",
            )
    for place, video in enumerate(content.videos):
        if isinstance(video, tuple) and len(video) > limits.frames:
            raise TooLarge(
                f"a video may be a list of {limits.frames} frames (--frames); this has {len(video)}: "
                f"only {MAX_FRAMES} of them are looked at, so sample it first",
                param=name_of(content, "video", place),
                code="too_many_frames",
            )
    if content.max_frames is not None and not 1 <= content.max_frames <= MAX_FRAMES:
        raise BadRequest(
            f"max_frames must be 1 to {MAX_FRAMES}, got {content.max_frames}",
            param=f"{content.where}.max_frames",
        )
    if content.fps is not None and not 0 < content.fps < math.inf:
        raise BadRequest(f"fps must be above 0, got {content.fps}", param=f"{content.where}.fps")
