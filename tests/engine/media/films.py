"""Films drawn and encoded."""

from __future__ import annotations

import io
import os
from fractions import Fraction

import av
from PIL import Image, ImageDraw


def made(
    count=30, size=(320, 240), rate=10, codec="libx264", format="mp4", options=None, drop=(), still=False
):
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format=format) as file:
            _encode(file, count, size, rate, codec, options or {}, drop, still)
    finally:
        # SVT-AV1, where root asks, puts its caller before everybody else, and all that is started by it.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return buffer.getvalue()


def _draw(place: int, size: tuple[int, int]) -> Image.Image:
    """A moving square on a gradient, so that each frame differs from its neighbours."""
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    x = 3 * place % (size[0] - 20)
    ImageDraw.Draw(image).rectangle((x, x // 2, x + 20, x // 2 + 20), (255, place * 7 % 256, 0))
    return image


def _encode(file, count, size, rate, codec, options, drop, still):
    stream = file.add_stream(codec, rate=rate, options=options)
    stream.width, stream.height = size
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    stream.codec_context.time_base = Fraction(1, rate)
    frame = None
    for place in range(count):
        if place in drop:
            continue
        if frame is None or not still:
            frame = av.VideoFrame.from_image(_draw(place, size))
        frame.pts, frame.time_base = place, Fraction(1, rate)
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))
