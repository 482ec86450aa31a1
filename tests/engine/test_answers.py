"""What the model answered once is answered again, to the bit, without it; within bounds, and only that."""

from __future__ import annotations

import numpy as np
import pytest

from qvl.engine import EngineConfig
from qvl.engine.answers import AnswerCache
from qvl.engine.errors import ConfigError
from qvl.engine.media.visual import Visual
from qvl.engine.prepare import Ready
from qvl.engine.prompt import Prompt

ROW = np.arange(4, dtype=np.float32)
KEPT = ROW.nbytes + 256


def ready(*ids: int, media: str = "") -> Ready:
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    return Ready(Prompt(list(ids)), tuple(Visual("image", pixels, (), digest) for digest in media))


def made(size: int) -> tuple[AnswerCache, list[bool]]:
    seen: list[bool] = []
    return AnswerCache(size, seen.append), seen


def test_whatever_decides_the_answer_is_in_the_key() -> None:
    answers, _ = made(10 * KEPT)
    asked = [(ready(1, 2), None), (ready(2, 1), None), (ready(1, 2), "wines"), (ready(258), None)]
    asked += [
        (ready(1, 2, media="a"), None),
        (ready(1, 2, media="ab"), None),
        (ready(1, 2, media="ba"), None),
    ]
    keys = [answers.key(*each) for each in asked]
    assert len(set(keys)) == len(keys)
    assert keys == [answers.key(*each) for each in asked]


def test_the_least_recently_used_goes_first() -> None:
    answers, seen = made(2 * KEPT)
    one, two, three = (answers.key(ready(i), None) for i in range(3))
    for key in (one, two):
        answers.keep(key, ROW)
    answers.find(one)
    answers.keep(three, ROW)
    assert [answers.find(key) is not None for key in (one, two, three)] == [True, False, True]
    assert seen == [True, True, False, True]


def test_a_row_too_large_is_not_kept() -> None:
    answers, _ = made(KEPT - 1)
    key = answers.key(ready(1), None)
    answers.keep(key, ROW)
    assert answers.find(key) is None


def test_nothing_is_kept_or_counted_when_it_is_off() -> None:
    answers, seen = made(0)
    key = answers.key(ready(1), None)
    answers.keep(key, ROW)
    assert answers.find(key) is None and not seen
    with pytest.raises(ConfigError, match="--answer-cache"):
        EngineConfig(embedder="x", answer_cache=-1)


def test_what_is_kept_does_not_hold_on_to_what_came_with_it() -> None:
    answers, _ = made(10 * KEPT)
    key = answers.key(ready(1), None)
    answers.keep(key, np.zeros((1000, 4), np.float32)[7])
    found = answers.find(key)
    assert found is not None and found.base is None
