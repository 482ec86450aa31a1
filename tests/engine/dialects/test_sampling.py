"""How many frames of a video file are read: said by a part, an item, or the request; the nearest wins."""

from __future__ import annotations

from typing import Any

import pytest

from qvl.engine.dialects import openai, rerank, vllm
from qvl.engine.dialects.fields import decode
from qvl.engine.errors import BadRequest
from qvl.engine.response import dump

FILM = {"type": "video_url", "video_url": {"url": "https://h/a.mp4"}}
FRAMES = {"type": "video", "video": ["x", "y"]}
IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
TEXT = {"type": "text", "text": "a"}


def rates(**fields: Any) -> list[tuple[float | None, int | None]]:
    given = openai.parse(decode(openai.EmbeddingsBody, dump(fields))).input
    return [(each.fps, each.max_frames) for each in given]  # type: ignore[union-attr]


def said(parts: list[Any], **fields: Any) -> tuple[float | None, int | None]:
    """The same by `messages`, `input` and a rerank's document."""
    [found] = rates(messages=[{"role": "user", "content": parts}], **fields)
    assert rates(input=[{"role": "user", "content": parts}], **fields) == [found]
    assert rates(input=[{"content": parts}], **fields) == [found]
    body = decode(rerank.RerankBody, dump({"query": parts, "documents": [{"content": parts}], **fields}))
    request = rerank.parse(body)
    for each in (request.query, *request.documents):
        assert (each.fps, each.max_frames) == found
    return found


def test_parts() -> None:
    assert said([FILM]) == (None, None)
    assert said([{**FILM, "fps": 2, "max_frames": 16}, TEXT]) == (2, 16)
    assert said([{"type": "video", "video": "https://h/a.mp4", "fps": 0.5}]) == (0.5, None)
    assert said([{**FILM, "fps": 2}, {**FILM, "fps": 2}, FRAMES, IMAGE]) == (2, None)


def test_beside_messages() -> None:
    assert said([FILM], fps=2, max_frames=16) == (2, 16)
    assert said([FILM], mm_processor_kwargs={"fps": 2, "max_frames": 16, "do_sample_frames": True}) == (2, 16)
    assert said([FILM], fps=2, mm_processor_kwargs={"fps": 2, "max_frames": 8}) == (2, 8)
    assert said([FILM], mm_processor_kwargs={"do_sample_frames": True}) == (None, None)


def test_the_nearest_wins() -> None:
    assert said([{**FILM, "fps": 4}], fps=2, mm_processor_kwargs={"max_frames": 16}) == (4, 16)
    item = {"content": [{**FILM, "fps": 4}], "fps": 3, "max_frames": 8}
    assert rates(input=[item, {"video": "v", "fps": 3}, {"video": "v"}], fps=2, max_frames=16) == [
        (4, 8),
        (3, 16),
        (2, 16),
    ]


def test_pairs() -> None:
    body = {"text_1": [{"video": "v"}], "text_2": ["a"], "mm_processor_kwargs": {"fps": 2}}
    [request] = vllm.parse_score(decode(vllm.ScoreBody, dump(body)))
    assert request.query.fps == 2


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        (
            {"messages": [{"role": "user", "content": [{**FILM, "fps": 2}, FILM]}]},
            "messages[0].content[1]",
            "in all",
        ),
        ({"input": [{"content": [{**TEXT, "fps": 2}]}]}, "input[0].content[0].fps", "type text has no `fps`"),
        (
            {"input": [{"content": [{**IMAGE, "max_frames": 2}]}]},
            "input[0].content[0].max_frames",
            "type image_url has",
        ),
        ({"input": [{"content": [{**FILM, "fps": 0}]}]}, "input[0].content[0].fps", "> 0"),
        ({"input": "a", "max_frames": 65}, "max_frames", "<= 64"),
        (
            {"input": "a", "fps": 2, "mm_processor_kwargs": {"fps": 1}},
            "mm_processor_kwargs.fps",
            "contradict",
        ),
        (
            {"input": "a", "mm_processor_kwargs": {"num_frames": 8}},
            "mm_processor_kwargs",
            "it may hold `fps`",
        ),
        (
            {"input": "a", "mm_processor_kwargs": {"do_sample_frames": False}},
            "mm_processor_kwargs.do_sample_frames",
            "always sampled",
        ),
        ({"input": "a", "media_io_kwargs": {"video": {"num_frames": 8}}}, "media_io_kwargs", "`messages`"),
    ],
)
def test_what_is_refused(fields: Any, param: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        rates(**fields)
    assert caught.value.param == param
