"""An image's size from its head: as Pillow reads it, from any source, in microseconds, and never an error."""

from __future__ import annotations

import base64
import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qvl.engine.admission import TEMPLATE_TOKENS, cost
from qvl.engine.config import Limits
from qvl.engine.media.image import load_image
from qvl.engine.media.visual import Visual
from qvl.engine.picture_size import image_size
from qvl.engine.protocol import Content, Source

FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {}),
    "progressive jpeg with a profile": ("JPEG", {"progressive": True, "icc_profile": b"p" * 100_000}),
    "webp": ("WEBP", {}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "webp with a profile": ("WEBP", {"icc_profile": b"p" * 100}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
}


def image(kind: str, width: int, height: int) -> bytes:
    name, options = FORMATS[kind]
    out = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(out, name, **options)
    return out.getvalue()


def spelled(data: bytes) -> list[Source]:
    text = base64.b64encode(data).decode()
    return [data, text, f"data:image/x;base64,{text}"]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (640, 17), (333, 1251)])
def test_as_pillow_says(kind: str, size: tuple[int, int]) -> None:
    for source in spelled(image(kind, *size)):
        assert image_size(source) == size


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (320, 256), (999, 1001), (3000, 1700), (5000, 40)])
def test_the_cost_is_close_to_the_tokens_that_it_becomes(size: tuple[int, int]) -> None:
    data = image("png", *size)
    tokens = Visual("image", load_image(data, Limits()), (), "").tokens
    assert cost(Content(images=(data,))) - TEMPLATE_TOKENS == pytest.approx(tokens, rel=0.2, abs=2)


@pytest.mark.parametrize(
    "source",
    [
        "https://x.test/a.png",
        "http://x.test/",
        "file:///a.png",
        "",
        "data:",
        "data:image/png,iVBO",
        "%%%",
        b"",
    ],
)
def test_what_is_not_inline_is_estimated(source: Source) -> None:
    assert image_size(source) is None
    assert cost(Content(images=(source,))) == TEMPLATE_TOKENS + 1800


@given(st.sampled_from(sorted(FORMATS)), st.data())
def test_it_never_raises(kind: str, data: st.DataObject) -> None:
    whole = image(kind, 8, 8)
    cut = bytearray(whole[: data.draw(st.integers(0, min(len(whole), 300)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if cut:
            cut[data.draw(st.integers(0, len(cut) - 1))] = data.draw(st.integers(0, 255))
    for source in spelled(bytes(cut)):
        image_size(source)


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_nor_on_noise(source: Source) -> None:
    cost(Content(images=(source,)))


def test_a_large_image_costs_no_more_time_than_a_small_one() -> None:
    text = (
        "data:image/jpeg;base64,"
        + base64.b64encode(image("progressive jpeg with a profile", 8, 8) + bytes(8 << 20)).decode()
    )
    start = time.thread_time()
    for _ in range(100):
        assert image_size(text) == (8, 8)
    # 20 us on an idle machine; a whole decode takes milliseconds.
    assert (time.thread_time() - start) / 100 < 0.001
