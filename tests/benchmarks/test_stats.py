"""The numbers of a row."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.load import highest
from benchmarks.scene import tokens_per_item
from benchmarks.stats import TAIL_REQUESTS, Timing, slowing, summary
from benchmarks.truth import Truth, allowed, error, wrong


def test_time_between_turns_does_not_count() -> None:
    turns = [
        [Timing(0.0, 1.0, 4, 200), Timing(1.0, 2.0, 4, 200)],
        [Timing(100.0, 102.0, 4, 200)],
    ]
    found = summary(turns)
    assert found.seconds == 4.0
    assert found.items_per_s == 3.0
    assert (found.p50_ms, found.requests, found.failed) == (1000.0, 3, 0)
    assert found.p99_ms == pytest.approx(1980)
    assert found.latencies == {"p50_ms": 1000.0, "p90_ms": pytest.approx(1800), "p99_ms": None}
    many = summary([[Timing(0.0, 1.0, 1, 200)] * TAIL_REQUESTS])
    assert many.latencies["p99_ms"] == 1000.0


def test_failures_are_counted_and_earn_nothing() -> None:
    found = summary([[Timing(0.0, 1.0, 1, 200), Timing(0.0, 2.0, 1, 500), Timing(0.0, 2.0, 1, 0)]])
    assert (found.requests, found.failed, found.items_per_s) == (3, 2, 0.5)
    assert summary([[Timing(0.0, 1.0, 1, 500)]]).items_per_s == 0.0
    assert summary([]).requests == 0


def test_the_search_closes_in_on_the_highest_rate() -> None:
    assert [rate for rate, _ in highest(lambda rate: rate <= 60, 100, 5)] == [100, 80, 64, 51.2, 57.6]
    assert not any(good for _, good in highest(lambda _: False, 100, 4))


def test_the_search_goes_up_until_a_rate_fails() -> None:
    assert [rate for rate, _ in highest(lambda rate: rate <= 140, 100, 5)] == [
        100,
        125,
        156.25,
        140.625,
        132.8125,
    ]


def test_a_queue_that_grows_is_slowing() -> None:
    steady = [Timing(t, t + 0.05 + 0.02 * (t % 3), 1, 200) for t in range(100)]
    growing = [Timing(t, t + 0.05 + 0.002 * t, 1, 200) for t in range(100)]
    assert not slowing(steady, 25)
    assert slowing(growing[::-1], 25)
    assert not slowing(growing, 1000)


def test_errors_are_of_the_checked_places() -> None:
    answer = np.eye(4, dtype=np.float32)
    truth = Truth((0, 3), answer[[0, 3]] + np.float32(0.25), (10, 10))
    assert error(answer, truth) == 0.25
    assert error(answer[:2], truth) == np.inf
    assert error(answer[:, :2], truth) == np.inf


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 1], ids=["checked", "unchecked"])
def test_what_is_no_number_is_no_answer(number: float, place: int) -> None:
    answer = np.eye(2, dtype=np.float32)
    truth = Truth((0,), answer[:1].copy(), (10,))
    assert error(answer, truth) == 0
    answer[place, 1] = number
    assert error(answer, truth) == np.inf


def test_another_request_s_answer_is_wrong_however_much_is_allowed() -> None:
    """Long texts on random weights: 0.02 apart, where FP8 allows 0.05."""
    ours, theirs = np.zeros((2, 1, 256), dtype=np.float32)
    theirs[:] += np.float32(0.02)
    known = [Truth((0,), ours, (2048,)), Truth((0,), theirs, (2048,))]
    limit = allowed("fp8_per_channel", 256)
    assert not list(wrong([ours + 0.008, theirs - 0.008], known, limit))
    assert len(list(wrong([theirs, ours], known, limit))) == 2
    assert len(list(wrong([ours, ours], known, limit))) == 1
    assert not list(wrong([theirs], known[:1], limit))
    [reason] = wrong([ours + 0.06, ours], known, limit)
    assert "is allowed" in reason


@pytest.mark.parametrize(("counts", "mean"), [((100, 110), 105), ((100, 400), None), ((), None)])
def test_tokens_are_told_where_requests_are_alike(counts: tuple[int, ...], mean: float | None) -> None:
    rows = np.zeros((1, 4), dtype=np.float32)
    assert tokens_per_item([Truth((0,), rows, (count,)) for count in counts]) == mean


def test_a_wider_vector_allows_less_in_one_number() -> None:
    assert allowed("bfloat16", 2048) < allowed("bfloat16", 128)
    assert 1.5e-4 < allowed("float32", 128) < 2e-4 < allowed("bfloat16", 4096)
    assert allowed("float32", None) < allowed("bfloat16", None) < allowed("fp8_per_channel", None)
