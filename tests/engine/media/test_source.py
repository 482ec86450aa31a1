"""Sources that are none, and files outside the allowed folders."""

from __future__ import annotations

import base64
import contextlib
import os
import tracemalloc

import numpy as np
import pytest

from qvl.engine.config import Limits, MediaConfig
from qvl.engine.errors import Unprocessable
from qvl.engine.media.source import read
from qvl.engine.protocol import Content


def of(source, where="input[3]"):
    return Content(images=(source,), where=where)


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(30)).decode()


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("data:image/png;base64," + PNG[:-1], "bad_base64"),
        ("data:image/png;base64," + PNG.replace("A", "*"), "bad_base64"),
        ("data:image/png;base64,", "bad_base64"),
        ("data:image/png;base64,QUJD=QUJD", "bad_base64"),
        ("data:image/png;base64,QUJDRA==QUJD", "bad_base64"),
        ("data:image/png;base64,%FF%FF", "bad_base64"),
        ("data:image/png;base64,%", "bad_base64"),
        ("data:image/png;base64," + PNG.replace("A", "%41"), "bad_base64"),
        ("data:image/png;base64,ÄÖÜ", "bad_base64"),
        (PNG[:-3], "bad_base64"),
        (PNG + "=", "bad_base64"),
        ("A" * 300 + "!", "bad_base64"),
        ("data:image/png,abc", "bad_source"),
        ("data:image/png;base64", "bad_source"),
        ("", "bad_source"),
        ("   ", "bad_source"),
        ("cat.jpg", "bad_source"),
        ("/tmp/cat.jpg", "bad_source"),
        ("ftp://example.com/cat.jpg", "bad_source"),
        ("gopher://127.0.0.1:70/_x", "bad_source"),
        ("javascript:alert(1)", "bad_source"),
        ("concat:/etc/passwd|/etc/hosts", "bad_source"),
        ("http:/example.com", "bad_source"),
        ("http://", "url_forbidden"),
    ],
)
def test_sources_that_are_none(source, code, refusal, is_refused):
    is_refused(refusal(of(source)), 422, code)


@pytest.mark.parametrize("escaped", [str.upper, str.lower])
def test_base64_as_urls_and_mails_have_it(escaped, one, picture, encoded):
    text = base64.b64encode(encoded(picture(32, 33))).decode()
    assert {"+", "/", "="} <= set(text)
    wanted = one(of(f"data:image/png;base64,{text}")).pixels
    codes = str.maketrans({"+": escaped("%2B"), "/": escaped("%2F"), "=": escaped("%3D")})
    lines = [text[at : at + 76].translate(codes) for at in range(0, len(text), 76)]
    for end in ("\r\n", " ", "\t\v\f", escaped("%0D%0A"), "%20"):
        found = one(of(f"data:image/png;base64,{end.join(lines)}#page=1"))
        assert np.array_equal(found.pixels, wanted)


@pytest.mark.parametrize("part", ["%41", "AB ", "A\r\n", "%20%0a", "%2B"])
def test_what_is_taken_out_of_base64_takes_no_more_memory_than_it_has(part):
    """As an object each, 21 million of them were 5 GB and held up everybody."""
    source = "data:image/png;base64," + part * (1 << 20)
    tracemalloc.start()
    try:
        with contextlib.suppress(Unprocessable):
            read(source, MediaConfig(), Limits())
        assert tracemalloc.get_traced_memory()[1] < 5 * len(source)
    finally:
        tracemalloc.stop()


class TestFiles:
    @pytest.fixture
    def place(self, tmp_path, picture, encoded):
        root = tmp_path / "open"
        (root / "sub").mkdir(parents=True)
        (tmp_path / "open-not").mkdir()
        for path in (root / "sub/a.png", tmp_path / "secret.png", tmp_path / "open-not/a.png"):
            path.write_bytes(encoded(picture(40, 40)))
        (root / "link.png").symlink_to(tmp_path / "secret.png")
        (root / "loop.png").symlink_to(root / "loop.png")
        (root / "inside.png").symlink_to(root / "sub/a.png")
        (root / "up").symlink_to(tmp_path)
        os.mkfifo(root / "pipe")
        return tmp_path

    @pytest.mark.parametrize("path", ["open/sub/a.png", "open/inside.png", "open/up/open/sub/../sub/a.png"])
    def test_read(self, path, place, one):
        assert one(
            of(f"file://{place}/{path}"), config=MediaConfig(file_roots=("/nowhere", str(place / "open")))
        )

    @pytest.mark.parametrize(
        "path",
        ["secret.png", "open/link.png", "open/../secret.png", "open/%2e%2e/secret.png", "open/up/secret.png",
         "open-not/a.png", "open/%00", "missing", "open/loop.png"],
    )  # fmt: skip
    def test_outside(self, path, place, refusal):
        error = refusal(of(f"file://{place}/{path}"), config=MediaConfig(file_roots=(str(place / "open"),)))
        assert error.code in ("url_forbidden", "fetch_failed" if "loop" in path else "url_forbidden")
        assert error.status == 422 and str(place) not in error.message

    @pytest.mark.parametrize("path", ["open/missing.png", "open/sub", "open/pipe"])
    def test_inside_but_no_file(self, path, place, refusal, is_refused):
        error = refusal(of(f"FILE://{place}/{path}"), config=MediaConfig(file_roots=(str(place / "open"),)))
        is_refused(error, 422, "fetch_failed")

    def test_off_by_default(self, place, refusal, is_refused):
        is_refused(refusal(of(f"file://{place}/open/sub/a.png")), 422, "url_forbidden", "--file-roots")

    def test_another_host(self, place, refusal, is_refused):
        config = MediaConfig(file_roots=(str(place / "open"),))
        is_refused(refusal(of(f"file://evil{place}/open/sub/a.png"), config=config), 422, "url_forbidden")
