"""A limit that a caller says is taken where it is what happens anyway; elsewhere it is told."""

from __future__ import annotations

import pytest

from qvl.engine.check.reference.conversation import FRAMES_PIXELS, IMAGE_PIXELS
from qvl.engine.config import MediaConfig
from qvl.engine.errors import BadRequest
from qvl.engine.media.counts import check_pixels
from qvl.engine.protocol import Content, PixelLimit

OWN = (MediaConfig().min_pixels, MediaConfig().max_pixels)
TRUE: list[PixelLimit] = [
    *(("image", name, value) for name, value in IMAGE_PIXELS.items()),
    *(("frames", name, value) for name, value in FRAMES_PIXELS.items()),
    ("video", "min_pixels", 128 * 32**2),
    ("video", "max_pixels", 768 * 32**2),
    ("video", "total_pixels", 117_964_800),
]


@pytest.mark.parametrize("limit", TRUE)
def test_the_references_own(limit: PixelLimit) -> None:
    check_pixels(Content(limits=(limit,)), OWN)
    for other in (limit[2] - 1, limit[2] + 1):
        with pytest.raises(BadRequest, match=rf"it is {limit[2]} here, not {other}") as caught:
            check_pixels(Content(limits=(limit, (*limit[:2], other))), OWN)
        assert (caught.value.param, caught.value.code) == (f"input.{limit[1]}", "unsupported_field")


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        (("image", "total_pixels", 9), "an image"),
        (("frames", "max_pixels", 768 * 32**2), "a list of frames"),
        (("frames", "min_pixels", 128 * 32**2), "a list of frames"),
    ],
)
def test_what_there_is_no_number_of(limit: PixelLimit, what: str) -> None:
    with pytest.raises(BadRequest, match=f"{what} has no such number"):
        check_pixels(Content(limits=(limit,)), OWN)


def test_the_server_may_have_others(load, picture, encoded) -> None:
    image = (encoded(picture(64, 64)),)
    said = [Content(images=image, limits=(("image", "max_pixels", most),)) for most in (1843200, 400_000)]
    for most, taken in ((1843200, [True, False]), (400_000, [False, True])):
        seen = load(*said, config=MediaConfig(max_pixels=most, workers=2))
        assert [isinstance(each, tuple) for each in seen] == taken
