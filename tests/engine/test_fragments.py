"""Which part of a film a name says."""

from __future__ import annotations

import pytest

from qvl.engine.errors import Unprocessable
from qvl.engine.fragments import Span, page_of, span_of
from qvl.engine.protocol import Source


@pytest.mark.parametrize(
    ("source", "span"),
    [
        (b"#t=1,2", Span()),
        ("a.mp4", Span()),
        ("a.mp4#", Span()),
        ("https://h/a.mp4?t=3", Span()),
        ("https://h/a.mp4?x#t=10,20.5", Span(10, 20.5)),
        ("a.mp4#t=10", Span(10)),
        ("a.mp4#t=,0.5", Span(None, 0.5)),
        ("a.mp4#T=npt:1:30,2:00.25", Span(90, 120.25)),
        ("a.mp4#xywh=0,0,1,1&t=1:02:03,100:00:00&x=1", Span(3723, 360000)),
        ("a.mp4#t=10%2C20", Span(10, 20)),
        ("a.mp4#t=npt%3A10,20", Span(10, 20)),
    ],
)
def test_parts_as_browsers_have_them(source: Source, span: Span) -> None:
    assert span_of(source) == span
    assert page_of(source) == 0


def test_what_is_too_long_to_be_looked_at_is_refused() -> None:
    assert span_of("a.mp4#" + "x" * 247 + "&t=1,2") == Span(1, 2)
    with pytest.raises(Unprocessable, match="over 256"):
        span_of("a.mp4#" + "x" * 251 + "&t=1,2")


@pytest.mark.parametrize(
    "said",
    ["", "x", "10,", ",", ",0", "20,10", "5,5", "-1", "1e3", "1:75:00", "inf", "smpte:1", "1&t=2"],
)
def test_what_is_no_part_is_refused(said: str) -> None:
    with pytest.raises(Unprocessable, match="names no part of a film: write #t=START,END") as caught:
        span_of(f"a.mp4#t={said}")
    assert caught.value.code == "no_such_part"
