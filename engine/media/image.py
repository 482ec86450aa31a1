"""Encoded image to resized pixels, as `qwen_vl_utils.fetch_image` does it, with the bounds it lacks."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import (  # noqa: F401 - each plugin puts its format into Image.OPEN
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from qwen_vl_utils.vision_process import MAX_RATIO, SPATIAL_MERGE_SIZE, smart_resize, to_rgb

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import TooLarge, Unprocessable, UnsupportedMedia
from qvl.engine.media.container import container_of
from qvl.engine.media.pdf import draw, is_pdf
from qvl.engine.media.visual import PATCH, Pixels

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""Raster formats that Pillow decodes itself; EPS and the like start other programs."""
MODELS_OWN = (MediaConfig.min_pixels, MediaConfig.max_pixels)
"""Pixels of an image after resizing: at least, at most."""

# Pillow warns about odd metadata (EXIF, APNG, MPO) that no pixel depends on.
warnings.filterwarnings("ignore", module=r"PIL\.")


def load_image(data: bytes, limits: Limits, page: int = 0, pixels: tuple[int, int] = MODELS_OWN) -> Pixels:
    """(1, H, W, 3) of an image item: the reference's resize, RGBA on white, an animation's first frame, no
    EXIF turn; of a PDF the page, from 1 (0: its only one)."""
    with open_image(data, limits, page) as image:
        return resized(image, PATCH, *pixels)[None]


def resized(
    image: Image.Image, patch: int, min_pixels: int | None = None, max_pixels: int | None = None
) -> Pixels:
    """The pixels of `qwen_vl_utils.fetch_image`, read-only, without its copies of what is RGB, or has its
    size, already: a sixth of a photo's time."""
    try:
        if image.mode != "RGBA":
            # Never drawn from here on, yet convert() warns about it.
            image.load()
            image.info.pop("transparency", None)
        rgb = image if image.mode == "RGB" else to_rgb(image)
        rows, columns = smart_resize(
            rgb.height, rgb.width, patch * SPATIAL_MERGE_SIZE, min_pixels=min_pixels, max_pixels=max_pixels
        )
        return np.asarray(rgb if rgb.size == (columns, rows) else rgb.resize((columns, rows)))
    except Exception as error:  # what a decoder raises on hostile bytes is not listed anywhere
        raise broken(error) from error


def open_image(data: bytes, limits: Limits, page: int = 0) -> Image.Image:
    """Header only, with its size within bounds; the pixels are decoded on first use."""
    image = draw(data, page, limits) if is_page(data) else _open(data)
    width, height = image.size
    if width < 1 or height < 1:
        raise Unprocessable(f"the image is empty ({width} x {height} pixels)", code="undecodable_media")
    if width * height > limits.image_pixels:
        raise too_many_pixels("image", width, height, limits)
    if max(width, height) / min(width, height) > MAX_RATIO:
        raise Unprocessable(
            f"the image is {width} x {height} pixels; one side may be at most {MAX_RATIO} times the other: "
            "crop or split it",
            code="aspect_ratio",
        )
    return image


def _open(data: bytes) -> Image.Image:
    """As `PIL.Image.open`, without its process-wide pixel limit, which warns; ours is checked right after."""
    name = _format_of(data)
    if name is None:
        raise _not_an_image(data)
    try:
        return Image.OPEN[name][0](io.BytesIO(data), "")
    except Image.DecompressionBombError as error:  # WebP and GIF ask Pillow's limit themselves
        raise TooLarge(
            f"{error} Scale it down, the model sees a fraction of that", code="too_many_pixels"
        ) from None
    except Exception as error:  # what a decoder raises on hostile bytes is not listed anywhere
        raise broken(error, name) from error


def _format_of(data: bytes) -> str | None:
    for name in FORMATS:
        _, accept = Image.OPEN.get(name, (None, None))
        # Pillow answers with a string where a format's library is missing.
        if accept is not None and accept(data[:16]) is True:
            return name
    return None


def is_page(data: bytes) -> bool:
    """Of a PDF: what opens as an image may speak of PDFs."""
    return _format_of(data) is None and is_pdf(data)


def is_image(data: bytes) -> bool:
    return _format_of(data) is not None or (is_pdf(data) and container_of(data) is None)


def _not_an_image(data: bytes) -> UnsupportedMedia:
    if container := container_of(data):
        return UnsupportedMedia(
            f"this is a video file ({container.label}), not an image; pass it as `video`",
            code="wrong_media_kind",
        )
    return UnsupportedMedia(
        f"not an image in an accepted format ({', '.join(FORMATS)}, PDF); convert it to PNG or JPEG"
    )


def broken(error: Exception, kind: str = "image") -> Unprocessable:
    reason = str(error) or type(error).__name__
    return Unprocessable(
        f"the {kind} data is truncated or corrupt ({reason[:120]}); check that the whole file was sent",
        code="undecodable_media",
    )


def too_many_pixels(what: str, width: int, height: int, limits: Limits) -> TooLarge:
    return TooLarge(
        f"the {what} is {width} x {height} = {width * height:,} pixels; at most {limits.image_pixels:,} are "
        "decoded (--image-pixels): scale it down, the model sees a fraction of that",
        code="too_many_pixels",
    )
