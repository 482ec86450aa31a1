"""Image files that differ in their pixels, quickly: windows cut out of large scenes, pages with other words.

Everything is a pure function of its arguments (and of Pillow's encoders).
"""

from __future__ import annotations

import io
from functools import cache
from threading import Lock

import numpy as np
from PIL import Image

from benchmarks.words import sentence
from qvl.engine.demo.drawing import png
from tests import samples

PAGE = (1240, 1754)
"""A4 at 150 dots per inch."""
_MARGIN = 192
"""Windows of one scene differ by up to this many pixels in each direction."""
_SCENES = 4
_WINDOWS = _SCENES * _MARGIN**2
_STRIDE = 100_003
"""Has no divisor in common with `_WINDOWS`, so that it comes to all of them, each far from the last."""
_SEEDS = 32
_DRAWING = Lock()
"""Or each of the threads that make requests would draw the scenes anew."""
_LINES = 20
_QUALITY = 90
"""With the scenes' grain about 0.15 bytes a pixel, as a camera's files have."""


def photo(size: tuple[int, int], *seed: int) -> bytes:
    """A JPEG of `size` (width, height) with grain, so that it compresses like a photograph."""
    return _jpeg(_window(size, *seed))


def small_png(size: tuple[int, int], *seed: int) -> bytes:
    return png(_window(size, *seed))


def page(kind: str, *seed: int) -> bytes:
    """A printed page as a `PNG` or `JPEG` file."""
    lines = [f"Report {seed[-1]}", *(sentence(9, *seed, line) for line in range(_LINES))]
    image = samples.page(lines, size=PAGE)
    return png(image) if kind == "PNG" else _jpeg(image)


def mixed(*seed: int) -> bytes:
    """A JPEG or PNG of some size from a thumbnail to a large photo, in multiples of nothing in particular."""
    rng = np.random.default_rng([7, *seed])
    width, height = (int(side) for side in np.exp(rng.uniform(np.log(224), np.log(1280), 2)))
    return (small_png if rng.random() < 0.3 else photo)((width, height), *seed)


def frames(count: int, size: tuple[int, int], *seed: int) -> tuple[bytes, ...]:
    """`count` JPEG frames over which the view wanders."""
    scene, left, top = _placed(size, *seed)
    return tuple(
        _jpeg(_cut(scene, (left + 4 * step) % _MARGIN, (top + 2 * step) % _MARGIN, size))
        for step in range(count)
    )


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _window(size: tuple[int, int], *seed: int) -> Image.Image:
    return _cut(*_placed(size, *seed), size)


def _placed(size: tuple[int, int], *seed: int) -> tuple[Image.Image, int, int]:
    """Another one for each of `_WINDOWS` numbers in a row, of any number of documents up to `_SEEDS`."""
    number = 0
    for each in seed:
        number = number * _SEEDS + each
    place, scene = divmod(number * _STRIDE % _WINDOWS, _SCENES)
    top, left = divmod(place, _MARGIN)
    return _scenes(size)[scene], left, top


def _cut(scene: Image.Image, left: int, top: int, size: tuple[int, int]) -> Image.Image:
    return scene.crop((left, top, left + size[0], top + size[1]))


def _scenes(size: tuple[int, int]) -> list[Image.Image]:
    """Large enough for any window; sizes are rounded up so that mixed ones share their scenes."""
    room = tuple(-(-side // 256) * 256 + _MARGIN for side in size)
    with _DRAWING:
        return _drawn((room[0], room[1]))


@cache
def _drawn(size: tuple[int, int]) -> list[Image.Image]:
    return [scene.image for scene in samples.scenes(_SCENES, size=size, seed=5)]
