"""Input for tests and benchmarks, drawn on the spot: captioned scenes, a text page, short videos.

Everything is a pure function of its arguments; pictures are `PIL.Image.Image` in RGB, files are bytes.

    scene = scenes(8)[0]                              # .image, .caption
    jpeg(scene.image)                                 # bytes
    page(["Invoice 17", "Total 15.70"])               # a visual document
    clip = moving_shape(24)                           # frames
    video(clip, fps=8, container="mp4")               # "mp4" (H.264) or "webm" (VP9)
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qvl.engine.demo import drawing

Container = Literal["mp4", "webm"]

SHAPES = ("circle", "square", "triangle")
PLACES = ("the sea", "a meadow", "the desert", "snow")
CODECS = {
    "mp4": ("libx264", {"preset": "veryfast", "qp": "22"}),
    "webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0"}),
}


@dataclass(frozen=True, slots=True)
class Scene:
    image: Image.Image
    caption: str
    """What is in the picture, e.g. `a red circle over the sea`."""


def scenes(count: int, *, size: tuple[int, int] = (320, 256), seed: int = 0) -> list[Scene]:
    """`count` captioned pictures of `size` (width, height); no caption comes twice before all have come."""
    rng = np.random.default_rng(seed)
    kinds = [(c, s, p) for c in drawing.COLOURS for s in SHAPES for p in PLACES]
    rounds = -(-count // len(kinds))
    chosen = [kinds[int(index)] for _ in range(rounds) for index in rng.permutation(len(kinds))][:count]
    return [Scene(_draw(rng, size, *kind), "a {} {} over {}".format(*kind)) for kind in chosen]


def _draw(
    rng: np.random.Generator, size: tuple[int, int], colour: str, shape: str, place: str
) -> Image.Image:
    """A lit backdrop with grain (no flat areas, as in a photo) and one shape somewhere in its middle."""
    width, height = size
    top, bottom = (np.array(end, dtype=np.float64) for end in drawing.PLACES[place])
    slope = np.linspace(0, 1, height)[:, None, None]
    field = top + (bottom - top) * slope + rng.normal(0, 7, (height, width, 3))
    image = Image.fromarray(field.clip(0, 255).astype(np.uint8))
    radius = min(size) * float(rng.uniform(0.2, 0.35))
    centre = (width * float(rng.uniform(0.35, 0.65)), height * float(rng.uniform(0.4, 0.6)))
    stamp(image, shape, drawing.COLOURS[colour], centre, radius)
    return image


def stamp(
    image: Image.Image,
    shape: str,
    colour: tuple[int, int, int],
    centre: tuple[float, float],
    radius: float,
) -> None:
    """Draw `shape` on `image`, in place."""
    draw = ImageDraw.Draw(image)
    x, y = centre
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        draw.ellipse(box, fill=colour, outline=(20, 20, 20), width=2)
    elif shape == "square":
        draw.rectangle(box, fill=colour, outline=(20, 20, 20), width=2)
    else:
        corners = [(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)]
        draw.polygon(corners, fill=colour, outline=(20, 20, 20))


def page(lines: Sequence[str], *, size: tuple[int, int] = (480, 640)) -> Image.Image:
    """A printed page: the first line is the heading, a rule below it, the others are body text."""
    image = Image.new("RGB", size, (252, 251, 247))
    draw = ImageDraw.Draw(image)
    left, top, pitch = size[0] // 12, size[1] // 14, max(12, size[1] // 26)
    heading, body = ImageFont.load_default(pitch * 1.1), ImageFont.load_default(pitch * 0.7)
    for index, line in enumerate(lines):
        where = (left, top + (index + (0.6 if index else 0)) * pitch)
        draw.text(where, line, fill=(30, 30, 36), font=body if index else heading)
    draw.line((left, top + 1.4 * pitch, size[0] - left, top + 1.4 * pitch), fill=(120, 120, 130), width=2)
    return image


def moving_shape(count: int, *, seed: int = 0) -> list[Image.Image]:
    """`count` frames of a circle that crosses the picture from left to right while the light fades."""
    width, height = 320, 256
    backdrop = _draw(np.random.default_rng(seed), (width, height), "white", "square", "the sea")
    frames = []
    for index in range(count):
        at = index / max(1, count - 1)
        frame = Image.fromarray((np.asarray(backdrop) * (1 - 0.4 * at)).astype(np.uint8))
        centre = (width * (0.15 + 0.7 * at), height * (0.5 + 0.3 * float(np.sin(6 * at))))
        stamp(frame, "circle", drawing.COLOURS["yellow"], centre, height * 0.15)
        frames.append(frame)
    return frames


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def video(frames: Sequence[Image.Image], *, fps: int = 8, container: Container = "mp4") -> bytes:
    """Encode frames of one even-sided size. One thread and no random identifiers, so that the bytes depend
    on nothing but the frames and the encoder's version."""
    import av

    codec, options = CODECS[container]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = index, Fraction(1, fps)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return buffer.getvalue()
