"""Pixel limits are read to be compared with the server's own (media/counts.py), wherever they are said."""

from __future__ import annotations

from typing import Any

import pytest

from qvl.engine.client.items import written
from qvl.engine.dialects import openai, rerank
from qvl.engine.dialects.fields import decode
from qvl.engine.errors import BadRequest
from qvl.engine.protocol import Content
from qvl.engine.response import dump

IMAGE = {"type": "image", "image": "x"}
FILM = {"type": "video", "video": "https://h/a.mp4"}
FRAMES = {"type": "video", "video": ["x", "y"]}
MOST = {"max_pixels": 1843200}


def limits(**fields: Any) -> list[Any]:
    given = openai.parse(decode(openai.EmbeddingsBody, dump(fields))).input
    return [each.limits for each in given if isinstance(each, Content)]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        (
            {"input": [{"image": "x", "min_pixels": 4096, **MOST}, "a"]},
            [(("image", "min_pixels", 4096), ("image", "max_pixels", 1843200)), ()],
        ),
        ({"input": [{"video": ["x"], "total_pixels": 7}]}, [(("video", "total_pixels", 7),)]),
        (
            {"input": [{"video": [["x"]], "image": "y", "total_pixels": 7}]},
            [(("frames", "total_pixels", 7),)],
        ),
        ({"input": [{"image": "y", "total_pixels": 7}]}, [(("image", "total_pixels", 7),)]),
        ({"input": [{"text": "a", **MOST}]}, [()]),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{**IMAGE, **MOST}, {**FRAMES, "max_pixels": 9}, {**IMAGE, **MOST}],
                    }
                ]
            },
            [(("image", "max_pixels", 1843200), ("frames", "max_pixels", 9))],
        ),
        (
            {
                "messages": [{"role": "user", "content": [IMAGE, FILM]}],
                "mm_processor_kwargs": {"max_pixels": 9},
            },
            [(("video", "max_pixels", 9), ("image", "max_pixels", 9))],
        ),
        (
            {"input": [{"image": "x", **MOST}, "a", [1]], "mm_processor_kwargs": MOST},
            [(("image", "max_pixels", 1843200),), ()],
        ),
    ],
)
def test_what_is_said(fields: Any, wanted: list[Any]) -> None:
    assert limits(**fields) == wanted


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [{"content": [{"type": "text", "text": "a", **MOST}]}]}, "input[0].content[0].max_pixels"),
        ({"input": [{"image": "x", "max_pixels": 0}]}, "input[0].max_pixels"),
        ({"input": [{"image": "x", "max_pixels": 9}], "mm_processor_kwargs": MOST}, "input[0]"),
        ({"input": [{"content": [{**IMAGE, **MOST}, {**IMAGE, "max_pixels": 9}]}]}, "input[0].content"),
        ({"input": "a", "max_pixels": 1843200}, "max_pixels"),
    ],
)
def test_what_is_refused_at_once(fields: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        limits(**fields)
    assert caught.value.param == param


def test_they_go_with_a_document_to_another_server() -> None:
    parts = [{**IMAGE, **MOST}, {**FRAMES, "total_pixels": 7}, FILM, {"type": "text", "text": "a"}]
    body = {"query": {"content": parts}, "documents": ["a"]}
    query = rerank.parse(decode(rerank.RerankBody, dump(body))).query
    again = decode(rerank.RerankBody, dump({"query": written(query), "documents": ["a"]}))
    assert set(rerank.parse(again).query.limits) == set(query.limits)
    assert len(query.limits) == 2
