"""Damaged requests, always the same ones: media files and JSON with bytes changed, cut, wiped or doubled, and
fields with values that are not theirs.

What is asked of them is that nothing falls over, and that any two ways to serve them answer alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest

from tests.engine.http.bad_requests import url
from tests.parity import cases

TURNS = 3
"""Of each damage to each file."""
KNOWN = {200, 400, 413, 415, 422}
SCORE = 1e-4

JUNK: tuple[Any, ...] = (None, -1, 1e300, "", "a" * 9000, [], [[]], {"text": 1}, [None, "a"], [None] * 3000)
Random = np.random.Generator
FILES: dict[str, Callable[[], bytes]] = {
    "png": partial(cases.image, 96, 64),
    "jpeg": partial(cases.mode, "RGB", "JPEG"),
    "webp": partial(cases.mode, "RGB", "WEBP"),
    "gif": partial(cases.mode, "P", "GIF"),
    "tiff": partial(cases.mode, "RGB", "TIFF"),
    "mp4": partial(cases.clip, 8, (96, 64)),
    "webm": partial(cases.clip, 8, (96, 64), "webm"),
}
BODIES: dict[str, Any] = {
    "/v1/embeddings": {"input": ["a red bicycle", {"text": "front", "instruction": "x"}], "dimensions": 32},
    "/v1/rerank": {"query": "a red bicycle", "documents": ["a bike", {"text": "a boat"}], "top_n": 2},
    "/v2/embed": {"texts": ["a"], "embedding_types": ["float", "int8"], "input_type": "search_query"},
    "/score": {"queries": "a red bicycle", "documents": ["a bike", "a boat"]},
}


def changed(data: bytes, random: Random) -> bytes:
    found = bytearray(data)
    for place in random.integers(0, len(data), random.integers(1, 9)):
        found[place] = random.integers(256)
    return bytes(found)


def cut(data: bytes, random: Random) -> bytes:
    return data[: random.integers(len(data))]


def wiped(data: bytes, random: Random) -> bytes:
    start, size = int(random.integers(len(data))), int(random.integers(1, 65))
    return data[:start] + bytes(min(size, len(data) - start)) + data[start + size :]


def doubled(data: bytes, random: Random) -> bytes:
    start, end = sorted(int(place) for place in random.integers(0, len(data), 2))
    return data[:end] + data[start:]


DAMAGES = (changed, cut, wiped, doubled)


def corpus() -> Iterator[tuple[str, str, bytes]]:
    """Name, route and body of each."""
    random = np.random.default_rng(20)
    for kind, make in FILES.items():
        file, is_video = make(), kind in ("mp4", "webm")
        for damage in DAMAGES:
            for turn in range(TURNS):
                medium = url(f"video/{kind}" if is_video else f"image/{kind}", damage(file, random))
                item = {"video" if is_video else "image": medium}
                yield (
                    f"{kind} {damage.__name__} {turn}",
                    "/v1/embeddings",
                    json.dumps({"input": item}).encode(),
                )
    for route, body in BODIES.items():
        for damage in DAMAGES:
            yield f"{route} {damage.__name__}", route, damage(json.dumps(body).encode(), random)
        for field in body:
            for place, value in enumerate(JUNK):
                yield f"{route} {field} {place}", route, json.dumps({**body, field: value}).encode()


def compare(one: httpx.Response, other: httpx.Response) -> None:
    assert one.status_code == other.status_code, (one.text[:500], other.text[:500])
    assert one.status_code in KNOWN, one.text[:500]
    left, right = (each.json() for each in (one, other))
    for body in (left, right):
        body.pop("id", None)
        body.pop("created", None)  # the second may have turned between the two
    same(left, right)


def same(left: Any, right: Any) -> None:
    """Equal, but for the last digits of numbers."""
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for name, value in left.items():
            same(value, right[name])
    elif isinstance(left, list):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            same(one, other)
    elif isinstance(left, float):
        assert left == pytest.approx(right, abs=SCORE)
    else:
        assert left == right
