"""Backdrops and shapes of the demo's world, as pixels."""

from __future__ import annotations

from io import BytesIO
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (214, 40, 40),
    "green": (46, 160, 67),
    "blue": (33, 94, 201),
    "yellow": (246, 200, 40),
    "purple": (132, 60, 170),
    "orange": (240, 130, 30),
    "white": (245, 245, 245),
    "black": (25, 25, 28),
}
PLACES = {
    "the sea": ((150, 200, 235), (20, 70, 130)),
    "a meadow": ((170, 215, 245), (80, 140, 60)),
    "the desert": ((250, 225, 180), (200, 150, 90)),
    "snow": ((200, 215, 230), (235, 240, 245)),
    "a forest": ((30, 90, 50), (15, 50, 30)),
    "the night": ((15, 15, 50), (50, 40, 90)),
    "a sunset": ((90, 50, 110), (250, 160, 90)),
    "a stage": ((120, 30, 40), (70, 45, 35)),
}
SIDE = 64
Size: TypeAlias = tuple[int, int]
"""(width, height)."""


def backdrop(place: str, rng: np.random.Generator, size: Size = (SIDE, SIDE)) -> Image.Image:
    top, bottom = (np.array(end, dtype=np.float32) for end in PLACES[place])
    width, height = size
    slope = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    field = top + (bottom - top) * slope + 7 * rng.standard_normal((height, width, 1), dtype=np.float32)
    return Image.fromarray(field.clip(0, 255).astype(np.uint8))


def stamp(
    image: Image.Image, shape: str, colour: str, striped: bool, centre: tuple[int, int], radius: int
) -> None:
    """Draw through a mask, so that stripes stay inside the shape; a dark rim sets it off any backdrop."""
    mask = _outline(image.size, shape, centre, radius)
    image.paste((20, 20, 20), (0, 0), mask)
    fill = Image.new("RGB", image.size, COLOURS[colour])
    if striped:
        pen = ImageDraw.Draw(fill)
        stripe = (250, 250, 250) if colour != "white" else (150, 150, 150)
        for y in range(centre[1] - radius, centre[1] + radius, 4):
            pen.line((0, y, image.size[0], y), fill=stripe)
    image.paste(fill, (0, 0), _outline(image.size, shape, centre, radius - 1))


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _outline(size: tuple[int, int], shape: str, centre: tuple[int, int], radius: int) -> Image.Image:
    mask = Image.new("L", size, 0)
    pen = ImageDraw.Draw(mask)
    (x, y), r = centre, radius
    third = max(2, r // 3)
    if shape in ("circle", "ring"):
        pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
        if shape == "ring":
            pen.ellipse((x - r // 2, y - r // 2, x + r // 2, y + r // 2), fill=0)
    elif shape == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=255)
    elif shape == "triangle":
        pen.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=255)
    else:
        pen.rectangle((x - r, y - third, x + r, y + third), fill=255)
        pen.rectangle((x - third, y - r, x + third, y + r), fill=255)
    return mask
