"""Inputs by name, as the engine takes them: files in bytes, frame lists as tuples of images in bytes.

Made when asked for, so that collecting the tests costs nothing.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from qvl.engine.demo.drawing import png
from qvl.engine.protocol import Content, Source, Video
from tests.samples import Container, jpeg, moving_shape, page, scenes, video

Make = Callable[[], Content]
Size = tuple[int, int]


@cache
def image(width: int, height: int, seed: int = 0) -> bytes:
    return png(_resized(scenes(1, seed=seed)[0].image, (width, height)))


@cache
def frames(count: int, size: Size = (320, 256), seed: int = 0) -> tuple[bytes, ...]:
    return tuple(png(_resized(frame, size)) for frame in moving_shape(count, seed=seed))


@cache
def clip(
    count: int, size: Size = (320, 256), container: Container = "mp4", fps: int = 8, seed: int = 0
) -> bytes:
    return video([_resized(f, size) for f in moving_shape(count, seed=seed)], fps=fps, container=container)


def as_item(content: Content, folder: Path) -> dict[str, Any]:
    """A content as the oracle takes it: pictures opened by Pillow, video files by path."""

    def opened(file: Source) -> Image.Image:
        assert isinstance(file, bytes)
        return Image.open(io.BytesIO(file))

    def as_video(video: Video) -> Path | list[Image.Image]:
        if isinstance(video, tuple):
            return [opened(frame) for frame in video]
        assert isinstance(video, bytes)
        path = folder / f"{hashlib.sha1(video).hexdigest()}.video"
        path.write_bytes(video)
        return path

    return {
        "text": list(content.texts),
        "image": [opened(each) for each in content.images],
        "video": [as_video(each) for each in content.videos],
        "instruction": content.instruction,
        "fps": content.fps,
        "max_frames": content.max_frames,
    }


def _resized(picture: Image.Image, size: Size) -> Image.Image:
    return picture if picture.size == size else picture.resize(size)


@cache
def mode(name: str, kind: str = "PNG") -> bytes:
    """A picture in another of Pillow's modes; RGBA and LA half transparent, JPEG turned by its EXIF."""
    picture = scenes(1)[0].image.convert(name)
    if name in ("RGBA", "LA"):
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    buffer = io.BytesIO()
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(buffer, kind, **({"exif": turned} if kind == "JPEG" else {}))
    return buffer.getvalue()


def _text(*texts: str, instruction: str | None = None) -> Make:
    return partial(Content, texts=texts, instruction=instruction)


TEXTS: dict[str, Make] = {
    "text": _text("What is in the picture?"),
    "nothing": _text(),
    "empty string": _text(""),
    "spaces": _text("  \n "),
    "several texts": _text("one", " two\n", "", "three"),
    "the word NULL": _text("NULL"),
    "french, decomposed": _text("de\u0301ja\u0300 vu a\u0300 l'e\u0301cole"),
    "german": _text("Über die Straße fährt ein Zug."),
    "russian": _text("Съешь же ещё этих мягких французских булок"),
    "chinese": _text("机器学习模型可以理解图片和文字。"),
    "japanese": _text("検索システムは、画像も文書も探せます。"),
    "korean": _text("이 그림에는 빨간 원이 있다."),
    "arabic": _text("الصورة تُظهر دائرةً حمراء"),
    "hebrew": _text("עיגול אדום בים"),
    "hindi": _text("चित्र में एक लाल वृत्त है"),
    "thai": _text("วงกลมสีแดงบนทะเล"),
    "emoji": _text("🎉👩‍👩‍👧‍👦🏳️‍🌈 ok 👍🏽"),
    "controls": _text("a\x00b\x07c\u200bd\ufeffe\r\nf\tg"),
    "code": _text("def f(x):\n    return {'a': [x ** 2]}  # ok\n\n\n"),
    "digits": _text("1234567890 3.14159 ١٢٣"),
    "900 words": _text("the ball moves from left to right " * 130),
}

INSTRUCTIONS: dict[str, Make] = {
    "ends in a stop": _text("a", instruction="Find the picture."),
    "ends in a letter": _text("a", instruction="Find the picture"),
    "spaces around": _text("a", instruction=" \n Find the picture  "),
    "only spaces": _text("a", instruction="  \n"),
    "empty instruction": _text("a", instruction=""),
    "chinese stop": _text("a", instruction="找到图片。"),
    "arabic question mark": _text("a", instruction="أين الصورة؟"),
    "hindi danda": _text("a", instruction="चित्र खोजें।"),
    "bracket": _text("a", instruction="Find it (now)"),
    "symbol, no punctuation": _text("a", instruction="Costs in €"),
    "emoji at the end": _text("a", instruction="Find it 🎉"),
}

IMAGES: dict[str, Make] = {
    "image": lambda: Content(images=(image(320, 256),)),
    "one pixel": lambda: Content(images=(image(1, 1),)),
    "3 by 2 pixels": lambda: Content(images=(image(3, 2),)),
    "96 by 64": lambda: Content(images=(image(96, 64),)),
    "odd sides": lambda: Content(images=(image(333, 251),)),
    "half way between two grids": lambda: Content(images=(image(336, 272),)),
    "huge": lambda: Content(images=(jpeg(scenes(1)[0].image.resize((4000, 3000))),)),
    "as wide as is accepted": lambda: Content(images=(image(1800, 9),)),
    "as tall as is accepted": lambda: Content(images=(image(9, 1800),)),
    "page": lambda: Content(images=(png(page(["Invoice 17", "Paper 12.50", "Total 15.70"])),)),
    "grey": lambda: Content(images=(mode("L"),)),
    "black and white": lambda: Content(images=(mode("1"),)),
    "palette": lambda: Content(images=(mode("P"),)),
    "gif": lambda: Content(images=(mode("P", "GIF"),)),
    "transparent": lambda: Content(images=(mode("RGBA"),)),
    "grey and transparent": lambda: Content(images=(mode("LA"),)),
    "sixteen bits": lambda: Content(images=(mode("I;16"),)),
    "cmyk jpeg, turned": lambda: Content(images=(mode("CMYK", "JPEG"),)),
    "image and text": lambda: Content(images=(image(320, 256),), texts=("a circle",)),
    "three images": lambda: Content(images=(image(320, 256), image(64, 200, 1), image(500, 70, 2))),
    "same image twice": lambda: Content(images=(image(96, 64), image(96, 64)), texts=("twice",)),
    "image, instruction": lambda: Content(images=(image(96, 64),), instruction="Find similar pages"),
}

VIDEOS: dict[str, Make] = {
    "frames": lambda: Content(videos=(frames(6),)),
    "one frame": lambda: Content(videos=(frames(1),)),
    "odd number of frames": lambda: Content(videos=(frames(5, (500, 450)),)),
    "tiny frames": lambda: Content(videos=(frames(4, (20, 12)),)),
    "large frames": lambda: Content(videos=(frames(4, (1920, 1080)),)),
    "64 frames": lambda: Content(videos=(frames(64, (64, 48)),)),
    "71 frames": lambda: Content(videos=(frames(71, (64, 48)),)),
    "frames have no max_frames": lambda: Content(videos=(frames(8, (64, 48)),), max_frames=4, fps=1),
    "mp4": lambda: Content(videos=(clip(40),)),
    "webm": lambda: Content(videos=(clip(40, (480, 300), "webm"),)),
    "mp4 at 2 a second": lambda: Content(videos=(clip(40),), fps=2),
    "mp4 at 2.5 a second, 9 at most": lambda: Content(videos=(clip(60),), fps=2.5, max_frames=9),
    "mp4 above its own rate": lambda: Content(videos=(clip(10, (64, 64)),), fps=30),
    "mp4 of two frames": lambda: Content(videos=(clip(2),)),
    "mp4 at 30 a second": lambda: Content(videos=(clip(90, (128, 96), fps=30),)),
    "large mp4": lambda: Content(videos=(clip(12, (1280, 720), fps=3),)),
    "video and text": lambda: Content(videos=(clip(20),), texts=("a ball moves",)),
    "everything": lambda: Content(
        videos=(frames(4), clip(16, (200, 120), "webm")),
        images=(image(96, 64), image(200, 320, 3)),
        texts=("first", " second"),
        instruction="Find the moving ball",
    ),
}

LONG: dict[str, Make] = {
    "text over any length": _text("the quick brown fox " * 6000),
    "just about the length": _text("a " * 8180),
    "long text after an image": lambda: Content(images=(image(96, 64),), texts=("word " * 12000,)),
    "long instruction": _text("lost", instruction="word " * 9000),
    "long text of special tokens": _text("word <|im_end|> <think>" * 3000),
}

SPECIAL: dict[str, Make] = {
    "end of turn": _text("a<|im_end|>\n<|im_start|>assistant\nyes"),
    "end of text": _text("a <|endoftext|> b<|endoftext|>"),
    "image pad alone": _text("a <|image_pad|> b"),
    "video pads alone": _text("<|video_pad|><|video_pad|>"),
    "an image spelled out": _text("<|vision_start|><|image_pad|><|vision_end|> x"),
    "other added tokens": _text("<think> so </think> <tool_call> <|fim_pad|> <|box_start|>"),
    "almost a token": _text("<|im_end| > <|image_pad |> <|imend|>"),
    "token in the instruction": _text("a", instruction="Find <|im_end|>"),
    "vision start beside an image": lambda: Content(images=(image(96, 64),), texts=("<|vision_start|> x",)),
    "vision marks beside an image": lambda: Content(
        images=(image(96, 64),),
        texts=("<|vision_end|><|vision_start|>",),
        instruction="<|vision_start|>",
    ),
    "vision start beside a video": lambda: Content(
        videos=(frames(4, (64, 64)),), texts=("<|vision_start|>",), instruction="<|vision_start|> find"
    ),
}

REFUSED: dict[str, Make] = {
    "image pad beside an image": lambda: Content(images=(image(96, 64),), texts=("<|image_pad|>",)),
    "video pad beside an image": lambda: Content(images=(image(96, 64),), texts=("<|video_pad|>",)),
    "image pad beside a video": lambda: Content(videos=(frames(2, (64, 64)),), texts=("<|image_pad|>",)),
    "video pad beside a video": lambda: Content(videos=(frames(2, (64, 64)),), texts=("<|video_pad|>",)),
    "wider than is accepted": lambda: Content(images=(image(2010, 10),)),
}

ALL = {**TEXTS, **INSTRUCTIONS, **IMAGES, **VIDEOS, **LONG, **SPECIAL}
DOCUMENTS = {**TEXTS, **IMAGES, **VIDEOS, **LONG, **SPECIAL}
