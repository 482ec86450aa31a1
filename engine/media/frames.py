"""Video frames resized as `qwen_vl_utils.fetch_video` does, one at a time; and lists of images as videos.

`fetch_video` itself is called by neither path: of frame lists it holds every decoded frame at once (64 frames
of 64 megapixels are 12 GB), and for files it needs a decoder that is not here. The sizes come from its own
`smart_resize` and constants, the resize is the same torchvision call, and the tests compare every pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from qwen_vl_utils.vision_process import (
    FPS,
    FRAME_FACTOR,
    MODEL_SEQ_LEN,
    SPATIAL_MERGE_SIZE,
    VIDEO_MAX_TOKEN_NUM,
    VIDEO_MIN_TOKEN_NUM,
    ceil_by_factor,
    smart_resize,
)
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from qvl.engine.config import Limits
from qvl.engine.errors import Unprocessable
from qvl.engine.media.image import open_image, resized
from qvl.engine.media.visual import PATCH, Pixels, Visual, fingerprint, pair_times
from qvl.engine.media.wire import Room, heap

FACTOR = PATCH * SPATIAL_MERGE_SIZE
LIST_BUDGET = 10 * VIDEO_MAX_TOKEN_NUM * FACTOR**2
"""`total_pixels` that the reference gives to a list of frames."""
MAX_FRAMES = 64
"""Frames taken of one video; an item may ask for fewer."""
FILE_BUDGET = MODEL_SEQ_LEN * FACTOR * FACTOR * 0.9
"""What qwen_vl_utils takes where the reference gives none: for a video file."""


def video_size(height: int, width: int, frames: int, budget: float) -> tuple[int, int]:
    low = VIDEO_MIN_TOKEN_NUM * FACTOR * FACTOR
    high = max(min(VIDEO_MAX_TOKEN_NUM * FACTOR * FACTOR, budget / frames * FRAME_FACTOR), int(low * 1.05))
    resized_height, resized_width = smart_resize(
        height, width, factor=FACTOR, min_pixels=low, max_pixels=high
    )
    return int(resized_height), int(resized_width)


def resize_frame(frame: Pixels, height: int, width: int) -> Pixels:
    """(H, W, 3) to (height, width, 3)."""
    # torch warns of what it could not write to.
    planes = torch.from_numpy(frame if frame.flags.writeable else frame.copy()).permute(2, 0, 1)[None]
    planes = transforms.resize(
        planes, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    return np.ascontiguousarray(planes[0].permute(1, 2, 0).numpy())


def one_core() -> None:
    """Run once in each worker: the workers are the parallelism. With torch's own threads beside them a resize
    of 720p took 55 ms of CPU instead of 14."""
    torch.set_num_threads(1)


def sampled(count: int) -> list[int]:
    """Which frames of a list of `count` the reference takes, whatever the item's `max_frames`."""
    if count <= MAX_FRAMES:
        return list(range(count))
    return [int(index) for index in np.linspace(0, count - 1, MAX_FRAMES, dtype=int)]


@dataclass(frozen=True, slots=True)
class Frame:
    pixels: Pixels
    rounded: tuple[int, int]
    """(height, width) after the first of the two resizes; equal for all frames that can be stacked."""
    digest: str


def load_frame(data: bytes, count: int, limits: Limits, page: int = 0) -> tuple[Pixels, tuple[int, int]]:
    """One image of a list of `count` (of a PDF the page, as `load_image` has it), and `Frame.rounded`.

    fetch_video passes fetch_image its factor (32) as the patch size, so a frame is first rounded to multiples
    of 64; that quirk is part of the answer.
    """
    with open_image(data, limits, page) as image:
        pixels = resized(image, FACTOR)
    height, width, _ = pixels.shape
    even = ceil_by_factor(count, FRAME_FACTOR)
    return resize_frame(pixels, *video_size(height, width, even, LIST_BUDGET)), (height, width)


def join_frames(frames: Sequence[Frame], room: Room = heap) -> Visual:
    """An odd list repeats its last frame, under the next index. The pixels come into what `room` gives."""
    for place, frame in enumerate(frames):
        if frame.rounded != frames[0].rounded:
            raise Unprocessable(
                f"frames of one video must have one size: frame {place} is {_size(frame)} after rounding, "
                f"the first is {_size(frames[0])}; resize them alike",
                code="frame_sizes",
            )
    pixels = [frame.pixels for frame in frames]
    pixels += pixels[-1:] * (len(pixels) % FRAME_FACTOR)
    digest = fingerprint("".join(frame.digest for frame in frames).encode(), "frames")
    joined = room(sum(each.nbytes for each in pixels)).reshape(len(pixels), *pixels[0].shape)
    return Visual("video", np.stack(pixels, out=joined), pair_times(range(len(pixels)), FPS), digest)


def _size(frame: Frame) -> str:
    return "{1} x {0}".format(*frame.rounded)
