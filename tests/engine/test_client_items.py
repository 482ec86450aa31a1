"""What a caller hands to the client, as JSON items of the wire."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qvl.engine.client.items import native, written
from qvl.engine.dialects import items
from qvl.engine.errors import BadRequest, UnsupportedMedia
from qvl.engine.magic import sniff
from qvl.engine.protocol import Content


def picture(mode: str = "RGB", size: tuple[int, int] = (5, 3)) -> Image.Image:
    pixels = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)
    return Image.fromarray(pixels).convert(mode)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    picture().save(buffer, kind)
    return buffer.getvalue()


def decoded(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2], validate=True)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_pil_image_loses_no_pixel(mode: str) -> None:
    image = picture("L").convert(mode)
    item = native(image)
    assert isinstance(item, dict)
    assert item["image"].startswith("data:image/png;base64,")
    back = Image.open(io.BytesIO(decoded(item["image"])))
    assert (back.mode, back.tobytes()) == (image.mode, image.tobytes())


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "F", "I", "PA", "RGBa", "RGBX"])
def test_modes_that_png_lacks_become_rgb(mode: str) -> None:
    image = Image.new(mode, (5, 3), 9)
    item = native(image)
    assert isinstance(item, dict)
    back = Image.open(io.BytesIO(decoded(item["image"])))
    assert (back.mode, back.tobytes()) == ("RGB", image.convert("RGB").tobytes())


@pytest.mark.parametrize(("mode", "size"), [("La", (5, 3)), ("RGB", (0, 3))])
@pytest.mark.parametrize("inside", [True, False])
def test_what_pillow_makes_no_png_of(mode: str, size: tuple[int, int], inside: bool) -> None:
    image = Image.new(mode, size)
    with pytest.raises(UnsupportedMedia, match=f"makes no PNG of this picture of mode {mode}") as caught:
        native({"image": [image]} if inside else image)
    assert caught.value.param == ("input.image[0]" if inside else "input")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_bytes_and_paths_travel_as_they_are(kind: str, tmp_path: Path) -> None:
    data = encoded(kind)
    (tmp_path / "file").write_bytes(data)
    for item in (native(data), native(tmp_path / "file"), native({"image": data})):
        assert isinstance(item, dict)
        assert item["image"].startswith(f"data:image/{kind.lower()};base64,")
        assert decoded(item["image"]) == data


def test_a_page_behind_the_name_of_a_pdf_stands_behind_its_url(tmp_path: Path) -> None:
    """It is the server that reads it, and refuses what is no page."""
    data = b"%PDF-1.7 of two pages"
    (tmp_path / "report.PDF").write_bytes(data)
    for page in ("#page=2", "#zoom=9&page=12", "#page=x"):
        path = tmp_path / f"report.PDF{page}"
        for item in (native(path), native({"image": path})):
            assert isinstance(item, dict)
            url, mark, said = item["image"].partition("#")
            assert (decoded(url), mark + said) == (data, page)
    (tmp_path / "report.PDF#page=2").write_bytes(data + b", one of which is here")
    item = native(tmp_path / "report.PDF#page=2")
    assert isinstance(item, dict)
    assert decoded(item["image"]) == data + b", one of which is here"
    with pytest.raises(FileNotFoundError, match=r"/other\.pdf'"):
        native(tmp_path / "other.pdf#page=2")


def test_a_part_behind_the_name_of_a_film_stands_behind_its_url(tmp_path: Path) -> None:
    data = b"\0\0\0\x20ftypisom...."
    (tmp_path / "film.mp4").write_bytes(data)
    for path in (tmp_path / "film.mp4#t=1,2.5", tmp_path / "film.mp4#t=x"):
        for item in (native(path), native({"video": path})):
            assert isinstance(item, dict)
            url, mark, said = item["video"].partition("#")
            assert (decoded(url), mark + said) == (data, "#" + path.name.partition("#")[2])


@pytest.mark.parametrize(
    ("head", "mime"),
    [
        (b"\0\0\0\x20ftypisom....", "video/mp4"),
        (b"\0\0\0\x20ftypqt  ....", "video/quicktime"),
        (b"\0\0\0\x20ftypavif....", "image/avif"),
        (b"\x1aE\xdf\xa3" + bytes(12), "video/webm"),
        (b"RIFF....AVI LIST", "video/x-msvideo"),
        (b"G" + bytes(187) + b"G", "video/mp2t"),
        (b"0&\xb2u\x8ef\xcf\x11" + bytes(8), "video/x-ms-asf"),
        (b"\0\0\0\x08free....moov", "video/quicktime"),
        (b"hello, a text file", None),
        (b"The free text", None),
        (b"", None),
    ],
)
def test_video_and_image_are_told_from_the_content(head: bytes, mime: str | None) -> None:
    assert sniff(head) == mime
    if mime is None:
        with pytest.raises(UnsupportedMedia, match=r"input\[2\] is not an image or video"):
            native(head, "input[2]")
    else:
        assert list(native(head)) == [mime.partition("/")[0]]


def test_dicts_may_hold_everything() -> None:
    frame = picture()
    item = native(
        {
            "text": ["a", "b"],
            "image": ["https://x/y.png", frame, encoded("JPEG")],
            "video": [frame, frame],
            "instruction": "Find it.",
            "fps": 2,
        }
    )
    assert isinstance(item, dict)
    assert item["text"] == ["a", "b"]
    assert (item["instruction"], item["fps"]) == ("Find it.", 2)
    assert item["image"][0] == "https://x/y.png"
    assert [url[:15] for url in item["image"][1:]] == ["data:image/png;", "data:image/jpeg"]
    assert all(url.startswith("data:image/png;") for url in item["video"])
    parts = native({"content": [{"type": "text", "text": "a"}, {"type": "image", "image": frame}]})
    assert isinstance(parts, dict)
    assert parts["content"][1]["image"].startswith("data:image/png;")


def test_what_cannot_be_sent_is_named() -> None:
    with pytest.raises(BadRequest, match=r"input\[1\].image\[0\] is of type ndarray"):
        native({"image": [np.zeros(3)]}, "input[1]")
    with pytest.raises(BadRequest, match="input is of type float"):
        native(1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "item",
    [
        {"image": "m/0.png"},
        {"video": ["./a film.mp4"]},
        {"video": "a.m4v"},
        {"content": [{"type": "image_url", "image_url": {"url": "/abs/0.JPG"}}]},
    ],
)
def test_a_path_in_a_string_is_told_from_a_url(item: Any) -> None:
    with pytest.raises(BadRequest, match=r"is no URL and no base64; for a file write Path\('"):
        native(item)
    text = {"content": [{"type": "text", "text": "m/0.png"}], "text": "0.png"}
    assert native(text) == text


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text() | st.dictionaries(st.sampled_from(["text", "image", "video", "fps", "content", "x"]), plain))
def test_items_that_are_json_already_pass_unchanged(item: Any) -> None:
    assert native(item) == item


@given(st.binary())
def test_any_bytes_under_a_media_key_arrive_whole(data: bytes) -> None:
    item = native({"video": [data]})
    assert isinstance(item, dict)
    assert decoded(item["video"][0]) == data


source = st.sampled_from(["https://h/a.gif", "https://h/b.mp4", "data:image/png;base64,AAAA", ""]) | st.text()
content = st.builds(
    Content,
    videos=st.lists(source | st.lists(source, min_size=1, max_size=3).map(tuple), max_size=3).map(tuple),
    images=st.lists(source, max_size=3).map(tuple),
    texts=st.lists(st.text(), max_size=3).map(tuple),
    fps=st.none() | st.floats(0.1, 1000),
    max_frames=st.none() | st.integers(1, 64),
)


@given(content)
def test_what_was_read_is_written_as_it_was(given: Content) -> None:
    item = native(written(given))
    assert items.content(msgspec.json.decode(orjson.dumps(item), type=items.Document), "input") == given
