"""Pages of PDFs, drawn as any tool of the kind draws them and resized as any picture is."""

from __future__ import annotations

import base64
import io

import numpy as np
import pypdfium2
import pytest
from PIL.PngImagePlugin import PngInfo
from pypdfium2.version import PDFIUM_INFO

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import Unprocessable
from qvl.engine.fragments import page_of
from qvl.engine.media.pdf import draw
from qvl.engine.protocol import Content
from tests.engine.media.pdfs import of, of_one_page
from tests.engine.media.test_image import official
from tests.samples import page

SIZE = (620, 877)


def written(*texts: str) -> bytes:
    first, *rest = [page([text], size=SIZE).convert("RGB") for text in texts]
    file = io.BytesIO()
    first.save(file, "pdf", save_all=True, append_images=rest, resolution=75)
    return file.getvalue()


ONE, TWO = written("only"), written("first", "second")


def drawn(data: bytes, place: int) -> bytes:
    """PNG, at 200 dots an inch."""
    with pypdfium2.PdfDocument(data) as document:
        file = io.BytesIO()
        document[place].render(scale=200 / 72).to_pil().convert("RGB").save(file, "png")
        return file.getvalue()


def as_url(data: bytes, end: str = "") -> str:
    return f"data:application/pdf;base64,{base64.b64encode(data).decode()}{end}"


@pytest.mark.parametrize(
    ("source", "data", "place"),
    [
        (ONE, ONE, 0),
        (as_url(ONE), ONE, 0),
        (as_url(ONE, "#page=1"), ONE, 0),
        (as_url(TWO, "#page=1"), TWO, 0),
        (as_url(TWO, "#page=2"), TWO, 1),
    ],
    ids=["bytes", "URL", "the only page", "first of two", "second of two"],
)
def test_a_page_is_a_picture_of_it(source, data, place, one):
    visual = one(Content(images=(source,)))
    assert np.array_equal(visual.pixels[0], official(drawn(data, place)))
    assert visual.kind == "image"


def test_a_page_of_a_file(one, tmp_path):
    (tmp_path / "two.pdf").write_bytes(TWO)
    config = MediaConfig(workers=1, file_roots=(str(tmp_path),))
    visual = one(Content(images=(f"file://{tmp_path}/two.pdf#page=2",)), config=config)
    assert np.array_equal(visual.pixels[0], official(drawn(TWO, 1)))


def test_pages_are_told_apart(load):
    [pages] = load(Content(images=(as_url(TWO, "#page=1"), as_url(TWO, "#page=2"))))
    assert len({visual.digest for visual in pages}) == 2


@pytest.mark.parametrize(
    ("source", "said", "code"),
    [
        (TWO, "2 pages, and none was named", "no_such_page"),
        (as_url(TWO, "#homepage=1"), "2 pages, and none was named", "no_such_page"),
        (as_url(TWO, "#page=3"), "2 pages, no page 3", "no_such_page"),
        (as_url(ONE[:-600], "#page=1"), "truncated, corrupt or without pages", "undecodable_media"),
        (b"%PDF-1.7 and nothing else", "truncated, corrupt or without pages", "undecodable_media"),
    ],
    ids=["several", "none named", "too few", "cut off", "junk"],
)
def test_what_cannot_be_drawn_is_told(source, said, code, refusal):
    error = refusal(Content(images=(source,), where="input[1]"))
    assert (error.status, error.code, error.param) == (422, code, "input[1].image")
    assert said in error.message


@pytest.mark.parametrize("catalog", ["/AcroForm<</Fields[5 0 R]>>", "/AcroForm<</Fields[5 0 R]/XFA(x)>>"])
def test_what_a_form_was_filled_with_is_drawn(catalog, one, caplog):
    field = "<</Type/Annot/Subtype/Widget/FT/Tx/T(a)/V(x)/Rect[0 0 100 100]/F 4/AP<</N 6 0 R>>>>"
    look = "<</Subtype/Form/BBox[0 0 100 100]/Length 26>>stream\n0 0 1 rg 0 0 100 100 re f \nendstream"
    data = of_one_page("", page="/Annots[5 0 R]", catalog=catalog, field=field, look=look)
    pixels = one(Content(images=(data,))).pixels[0]
    _, width, _ = pixels.shape
    assert (pixels[:, : width // 2 - 8] == (0, 0, 255)).all()
    assert (pixels[:, width // 2 + 8 :] == 255).all()
    draw(data, 1, Limits())  # here, where its warnings would be seen
    assert not caplog.records


def test_the_library_has_no_scripts():
    """A form's would run with what draws its fields."""
    assert not {"V8", "XFA"} & set(PDFIUM_INFO.flags)


EMPTY = of({1: "<</Type/Catalog/Pages 2 0 R>>", 2: "<</Type/Pages/Kids[]/Count 0>>"})
LOCK = f"/Encrypt<</Filter/Standard/V 1/R 2/O({'a' * 32})/U({'a' * 32})/P -1>>/ID[(a)(b)]"
LOCKED = ONE.replace(b"/Root", LOCK.encode() + b"/Root")
FRAGMENTS = ["page=0", "page=-1", "page=1e3", "page=1&page=2", "page=1.5", "page=1000000", "page=", "page= 1",
             "page=1,2", "zoom=1&page=x", "page=%31", "Page=2x", "page=1#page=1", "page=\u0661"]  # fmt: skip


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_what_is_said_of_a_page_and_is_none_is_refused(fragment, load):
    """Of a PDF of one page it was that one."""
    url = as_url(ONE, f"#{fragment}")
    [image, frame] = load(Content(images=(ONE, url)), Content(videos=((ONE, url),)))
    assert (image.status, image.code, image.param) == (422, "no_such_page", "input.image[1]")
    assert frame.param == "input.video.frames[1]"
    assert "write #page=N, from 1 to 999999" in image.message


@pytest.mark.parametrize(
    ("source", "page"),
    [
        (b"#page=3", 0),
        ("x.pdf", 0),
        ("x.pdf#", 0),
        ("x.pdf#zoom=100", 0),
        ("x.pdf#page=3", 3),
        ("x.pdf#PAGE=3", 3),
        ("x.pdf#page=0003", 3),
        ("x.pdf#page=3&zoom=100", 3),
        ("x.pdf#zoom=100&page=3&view=Fit", 3),
        ("https://h/x.pdf?page=x#page=999999", 999_999),
    ],
)
def test_pages_as_readers_of_pdfs_have_them(source, page):
    assert page_of(source) == page


def test_a_locked_file_is_told_as_one_and_no_other_after_it(refusal):
    locked = refusal(Content(images=(LOCKED,), where="input[0]"))
    assert "locked by a password" in locked.message and locked.code == "undecodable_media"
    [first, second] = in_one_process(LOCKED, EMPTY)
    assert "locked" in first and "locked" not in second and "without pages" in second


def in_one_process(*files: bytes) -> list[str]:
    """What is told of each."""
    told = []
    for data in files:
        with pytest.raises(Unprocessable) as caught:
            draw(data, 0, Limits())
        told.append(caught.value.message)
    return told


@pytest.mark.parametrize("box", ["500 500 600 600", "200 0 300 100"])
def test_a_page_that_is_cut_to_nothing_is_drawn_whole(box, one):
    whole, cut = (of_one_page("1 0 0 rg 10 10 80 40 re f", page=page) for page in ("", f"/CropBox[{box}]"))
    found, wanted = (one(Content(images=(data,))).pixels for data in (cut, whole))
    assert np.array_equal(found, wanted)


def test_a_page_as_large_as_a_house_is_drawn_small(one):
    file = io.BytesIO()
    page(["wide"], size=SIZE).convert("RGB").save(file, "pdf", resolution=5)
    visual = one(Content(images=(file.getvalue(),)), limits=Limits(image_pixels=500_000))
    assert visual.pixels[0].shape[0] * visual.pixels[0].shape[1] <= 520_000


@pytest.mark.parametrize("box", ["30000000 0.001", "100000000 0.001", "1e30 1e30"])
def test_a_page_as_thin_as_a_hair_is_bounded(box, load):
    data = ONE.replace(
        ONE[(at := ONE.index(b"/MediaBox")) : ONE.index(b"]", at)], f"/MediaBox [0 0 {box}".encode()
    )
    [outcome] = load(Content(images=(data,)), limits=Limits(image_pixels=500_000))
    assert isinstance(outcome, tuple) or (outcome.status, outcome.code) in {
        (422, "aspect_ratio"),
        (422, "undecodable_media"),
    }


def test_a_picture_that_speaks_of_pdfs_is_a_picture(one, picture, encoded):
    told = PngInfo()
    told.add_text("Comment", "a file that begins with %PDF-1.4")
    data = encoded(picture(64, 64), "PNG", pnginfo=told)
    assert np.array_equal(one(Content(images=(data,))).pixels[0], official(data))


def test_pages_may_be_the_frames_of_a_video(one):
    pages = (as_url(TWO, "#page=1"), as_url(TWO, "#page=2"))
    pictures = tuple(drawn(TWO, place) for place in range(2))
    found, wanted = one(Content(videos=(pages,))), one(Content(videos=(pictures,)))
    assert np.array_equal(found.pixels, wanted.pixels)


def test_damaged_bytes_never_escape(load):
    """Whatever the library makes of them, it is a picture or a 4xx."""
    rng = np.random.default_rng(1)
    contents = []
    for seed in range(40):
        data = bytearray(ONE)
        for place in rng.integers(8, len(data), 1 + seed):
            data[place] = rng.integers(256)
        contents.append(Content(images=(bytes(data),)))
    for outcome in load(*contents):
        assert isinstance(outcome, tuple) or 400 <= outcome.status < 500


def test_a_film_it_is_not(refusal):
    error = refusal(Content(videos=(ONE,)))
    assert (error.status, error.code) == (415, "wrong_media_kind")
