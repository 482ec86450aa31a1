"""Images, pixel by pixel, against qwen_vl_utils run as the reference runs it."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qwen_vl_utils import process_vision_info

from qvl.engine.config import MediaConfig
from qvl.engine.protocol import Content


def official(data: bytes, least: int = 4 * 32 * 32, most: int = 1800 * 32 * 32) -> Any:
    url = "data:image;base64," + base64.b64encode(data).decode()
    item = {"type": "image", "image": url, "min_pixels": least, "max_pixels": most}
    messages = [{"role": "user", "content": [item]}]
    images, _ = process_vision_info(messages, image_patch_size=16)
    return np.array(images[0])


SIZES = [
    (1, 1), (32, 32), (33, 31), (64, 64), (96, 64), (100, 100), (320, 256), (333, 251), (640, 480),
    (1000, 5), (5, 1000), (1990, 10), (2000, 1500), (1343, 1373), (1380, 1400), (3000, 2000), (4000, 60),
]  # fmt: skip


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_pixels_are_the_references(width, height, one, picture, encoded):
    data = encoded(picture(width, height))
    visual = one(Content(images=(data,)))
    expected = official(data)
    assert np.array_equal(visual.pixels[0], expected)
    assert visual.pixels.flags.c_contiguous
    assert visual.kind == "image" and visual.timestamps == ()
    assert visual.grid == (1, expected.shape[0] // 16, expected.shape[1] // 16)
    assert visual.tokens == expected.shape[0] * expected.shape[1] // 1024


@pytest.mark.parametrize(("width", "height"), [(1, 1), (200, 1), (1990, 10), (1000, 700), (3000, 2000)])
@pytest.mark.parametrize(("least", "most"), [(1, 204_800), (500_000, 500_000), (4096, 8_388_608)])
def test_bounds_of_one_s_own_are_the_references(least, most, width, height, one, picture, encoded):
    data = encoded(picture(width, height))
    visual = one(Content(images=(data,)), config=MediaConfig(min_pixels=least, max_pixels=most))
    assert np.array_equal(visual.pixels[0], official(data, least, most))
    assert visual.digest != one(Content(images=(data,))).digest


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"]
)
def test_modes(mode, one, picture, encoded):
    image = picture(150, 90, "L" if mode in ("I;16", "PA") else mode)
    if mode in ("I;16", "PA"):
        image = image.convert("I;16") if mode == "I;16" else image.convert("P").convert("PA")
    data = encoded(image, "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "TIFF")
    assert np.array_equal(one(Content(images=(data,))).pixels[0], official(data))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
def test_formats(format, one, picture, encoded):
    data = encoded(picture(200, 130), format)
    assert np.array_equal(one(Content(images=(data,))).pixels[0], official(data))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(format, one, picture, encoded):
    frames = [picture(80, 70, seed=seed) for seed in range(3)]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert np.array_equal(one(Content(images=(data,))).pixels[0], official(data))


def test_exif_orientation_is_not_applied(one, picture, encoded):
    image = picture(200, 100)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, "JPEG", exif=exif)
    visual = one(Content(images=(data,)))
    assert visual.pixels.shape[1:3] == (96, 192)
    assert np.array_equal(visual.pixels[0], official(data))


@pytest.mark.parametrize("transparency", [3, bytes(range(256))])
def test_palette_with_transparency_does_not_warn(transparency, one, picture, encoded):
    data = encoded(picture(90, 60, "P"), transparency=transparency)
    with pytest.warns(UserWarning) if isinstance(transparency, bytes) else pytest.MonkeyPatch.context():
        expected = official(data)
    assert np.array_equal(one(Content(images=(data,))).pixels[0], expected)


def test_transparent_pixels_become_white(one, encoded):
    data = encoded(Image.new("RGBA", (64, 64), (10, 20, 30, 0)))
    assert (one(Content(images=(data,))).pixels == 255).all()


def test_every_spelling_of_a_source_gives_the_same(load, picture, encoded, tmp_path):
    data = encoded(picture(100, 80))
    text = base64.b64encode(data).decode()
    lines = base64.encodebytes(data).decode()
    quoted = text.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D")
    path = tmp_path / "a b.png"
    path.write_bytes(data)
    sources = (
        data, text, lines, f"data:image/png;base64,{text}", f"DATA:;base64,{lines}",
        f"data:image/png;charset=x;base64,{quoted}", f"data:image/png;base64,{text[:40]}%0A{text[40:]}%20",
        f"file://{tmp_path}/a%20b.png", f"file://localhost{tmp_path}/a%20b.png",
    )  # fmt: skip
    (visuals,) = load(Content(images=sources), config=MediaConfig(file_roots=(str(tmp_path),)))
    assert len({visual.digest for visual in visuals}) == 1 and len(visuals) == len(sources)


def test_digest_tells_pixels_apart(load, encoded):
    grey = [encoded(Image.new("RGB", (64, 64), (shade,) * 3)) for shade in (10, 11)]
    wide = encoded(Image.new("RGB", (128, 32), (10,) * 3))
    (visuals,) = load(Content(images=(*grey, wide)))
    assert len({visual.digest for visual in visuals}) == 3


def test_the_file_behind_a_jpeg_may_be_a_multi_picture_one(one, picture, encoded):
    images = [picture(80, 70, seed=seed) for seed in range(2)]
    buffer = io.BytesIO()
    images[0].save(buffer, "MPO", save_all=True, append_images=images[1:])
    data = buffer.getvalue()
    assert np.array_equal(one(Content(images=(data,))).pixels[0], official(data))
