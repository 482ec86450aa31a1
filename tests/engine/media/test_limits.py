"""What is refused, with which status and code, and that each message names its limit."""

from __future__ import annotations

import base64
import io
import re
import resource
import struct
import zlib
from pathlib import Path
from urllib.parse import quote

import numpy as np
import psutil
import pytest
from PIL import Image

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import QvlError
from qvl.engine.media.decoders import ForkServer
from qvl.engine.media.wire import Job, heap
from qvl.engine.protocol import Content


def of(source, where="input[3]"):
    return Content(images=(source,), where=where)


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """100 megapixels in about 100 kB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(10_001 * 10_000), 9))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def test_decompression_bomb(bomb, refusal, recwarn, is_refused):
    assert len(bomb) < 110_000
    is_refused(refusal(of(bomb)), 413, "too_many_pixels", "100,000,000", "64,000,000", "--image-pixels")
    frames = refusal(Content(videos=((bomb,),), where="query"))
    is_refused(frames, 413, "too_many_pixels")
    assert frames.param == "query.video.frames[0]"
    assert not recwarn.list


@pytest.mark.parametrize("side", [9_500, 16_383])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_webp_canvas(side, refusal, encoded, is_refused):
    """90 and 268 megapixels: Pillow's WebP reader has a limit of its own, which warns and then raises."""
    small = Image.new("RGBA", (16, 16), (1, 2, 3, 4))
    data = bytearray(encoded(small, "WEBP", save_all=True, append_images=[Image.new("RGBA", (16, 16))]))
    canvas = data.index(b"VP8X") + 12
    data[canvas : canvas + 6] = (side - 1).to_bytes(3, "little") * 2
    is_refused(refusal(of(bytes(data))), 413, "too_many_pixels")


def test_a_higher_limit_than_pillows_own_does_not_warn(bomb, one):
    assert one(of(bomb), limits=Limits(image_pixels=200_000_000)).pixels.shape == (1, 1344, 1344, 3)


def test_image_pixels_at_the_limit(one, refusal, picture, encoded, is_refused):
    data = encoded(picture(100, 100))
    assert one(of(data), limits=Limits(image_pixels=10_000))
    is_refused(refusal(of(data), limits=Limits(image_pixels=9_999)), 413, "too_many_pixels")


@pytest.mark.parametrize("form", ["bytes", "base64", "data", "percent", "file"])
def test_media_bytes(form, one, refusal, picture, encoded, tmp_path, is_refused):
    data = encoded(picture(64, 64))
    (tmp_path / "a.png").write_bytes(data)
    text = base64.b64encode(data).decode()
    source = {
        "bytes": data,
        "base64": text,
        "data": f"data:image/png;base64,{text}",
        "percent": "data:;base64," + quote(text, safe=""),
        "file": f"file://{tmp_path}/a.png",
    }[form]
    config = MediaConfig(file_roots=(str(tmp_path),))
    assert one(of(source), config=config, limits=Limits(media_bytes=len(data)))
    for most in (len(data) - 1, 100):
        error = refusal(of(source), config=config, limits=Limits(media_bytes=most))
        is_refused(error, 413, "media_too_large", f"{most:,}", "--media-bytes")


def test_counts(refusal, load, picture, encoded, is_refused):
    data = encoded(picture(32, 32))
    error = refusal(Content(images=(data,) * 3, where="input[1]"), limits=Limits(images=2))
    is_refused(error, 413, "too_many_images", "--images", "has 3")
    assert error.param == "input[1].image"
    error = refusal(Content(videos=((data,),) * 3, where="input[1]"), limits=Limits(videos=2))
    is_refused(error, 413, "too_many_videos", "--videos")
    error = refusal(Content(videos=((data,) * 5,), where="input[1]"), limits=Limits(frames=4))
    is_refused(error, 413, "too_many_frames", "--frames", "has 5")
    assert error.param == "input[1].video"
    (fine,) = load(Content(images=(data,) * 2), limits=Limits(images=2))
    assert len(fine) == 2


@pytest.mark.parametrize(
    ("settings", "param"),
    [({"max_frames": 0}, "max_frames"), ({"max_frames": 65}, "max_frames"), ({"fps": 0.0}, "fps"),
     ({"fps": float("nan")}, "fps"), ({"fps": float("inf")}, "fps"), ({"fps": -1.0}, "fps")],
)  # fmt: skip
def test_settings(settings, param, refusal, is_refused):
    error = refusal(Content(videos=(b"x",), where="query", **settings))
    is_refused(error, 400, "invalid_request")
    assert error.param == f"query.{param}"


def test_frames_of_a_file_are_not_those_of_a_list(one, film):
    """`--frames` is of images that a caller sends; a file is sampled."""
    clip = Content(videos=(film(count=30, rate=1, size=(64, 64)),), max_frames=20)
    assert len(one(clip, limits=Limits(frames=16)).pixels) == 20


@pytest.mark.parametrize("size", [(1, 201), (4021, 20)])
def test_aspect_ratio(size, refusal, picture, encoded, is_refused):
    is_refused(refusal(of(encoded(picture(*size)))), 422, "aspect_ratio", "200")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])
def test_truncated_images(format, kept, refusal, picture, encoded, is_refused):
    data = encoded(picture(300, 300), format)
    is_refused(refusal(of(data[: int(len(data) * kept)])), 422, "undecodable_media", "truncated")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_never_escape(format, load, picture, encoded):
    rng = np.random.default_rng(2)
    good = encoded(picture(60, 60), format)
    contents = []
    for seed in range(40):
        data = bytearray(good)
        for place in rng.integers(4, len(data) if seed % 2 else 200, 1 + seed % 8):
            data[place] = rng.integers(256)
        contents.append(of(bytes(data)))
    for outcome in load(*contents):
        assert not isinstance(outcome, QvlError) or 400 <= outcome.status < 500


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"


@pytest.mark.parametrize(
    "data",
    [b"hello, this is text", b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", EPS,
     b"PK\x03\x04 zip", b"<html></html>", bytes(1000), b"8BPS\x00\x01", b"RIFF\x04\x00\x00\x00WAVEfmt "],
)  # fmt: skip
def test_what_is_no_image(data, refusal, is_refused):
    error = refusal(of(data, "input[0]"))
    is_refused(error, 415, "unsupported_media", "JPEG")
    assert error.param == "input[0].image"
    is_refused(refusal(Content(videos=(data,))), 415, "unsupported_media", "MP4")


def test_a_format_left_out_although_pillow_reads_it(refusal, picture, is_refused):
    buffer = io.BytesIO()
    picture(32, 32).save(buffer, "ICO")
    is_refused(refusal(of(buffer.getvalue())), 415, "unsupported_media")


def test_images_are_not_looked_for_in_text_that_starts_like_one(refusal):
    for magic in (
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM",
        b"II*\x00",
        b"RIFF\x10\x00\x00\x00WEBPVP8 ",
    ):
        assert refusal(of(magic + b" and then text " * 10)).status == 422


def test_pillow_is_left_as_it_was():
    assert Image.MAX_IMAGE_PIXELS == 89478485


def test_a_decoder_that_crashes_leaves_no_core_behind() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))  # as services have it: without end
    try:
        server = ForkServer(128 << 20)
        worker = server.fork()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    worker.ask(Job("image", Limits()), b"", lambda: False, heap)  # it is set up by then
    [decoder] = psutil.Process(server.pid).children()
    limits = Path(f"/proc/{decoder.pid}/limits").read_text()
    worker.kill()
    server.close()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), limits
