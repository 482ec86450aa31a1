"""What the rest of the engine sees of an image or a video: resized uint8 pixels, and what they hash to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import blake3
import numpy as np
import numpy.typing as npt

Kind: TypeAlias = Literal["image", "video"]
Pixels: TypeAlias = npt.NDArray[np.uint8]

PATCH = 16
"""Pixels a side of one vision patch."""
TEMPORAL = 2
"""Frames that one temporal patch folds together."""
MERGE = 2
"""Patches a side that make one token."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Visual:
    """One image or video, resized as the reference resizes it. Items share them: do not write to `pixels`."""

    kind: Kind
    pixels: Pixels = field(compare=False, repr=False)
    """(T, H, W, 3), contiguous; T is 1 for an image and even for a video."""
    timestamps: tuple[float, ...]
    """Seconds of each pair of frames of a video; () for an image."""
    digest: str
    """`fingerprint` of what it was made from: equal digests mean equal vision tokens."""

    def move(self, pixels: Pixels) -> None:
        """The same pixels, elsewhere in memory."""
        object.__setattr__(self, "pixels", pixels)

    @property
    def grid(self) -> tuple[int, int, int]:
        """(t, h, w) in patches."""
        frames, height, width, _ = self.pixels.shape
        return max(1, frames // TEMPORAL), height // PATCH, width // PATCH

    @property
    def tokens(self) -> int:
        t, h, w = self.grid
        return t * h * w // MERGE**2


def fingerprint(data: bytes, *settings: object) -> str:
    """Hash of encoded bytes and what they are decoded as; of pixels it would cost ten times as much."""
    digest = blake3.blake3(repr(settings).encode())
    digest.update(data)
    return digest.hexdigest(length=20)


def pair_times(indices: Sequence[int], fps: float) -> tuple[float, ...]:
    """Middle of each pair of frames, as `Qwen3VLProcessor._calculate_timestamps` puts it into the prompt."""
    seconds = [index / fps for index in indices]
    return tuple((first + last) / 2 for first, last in zip(seconds[::2], seconds[1::2], strict=True))
