"""Keys share the budget: none may fill it while others want some, each gets in, and batch leaves room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvl.engine import admission as module
from qvl.engine.admission import CALLER, Admission
from qvl.engine.errors import Overloaded
from qvl.engine.protocol import Priority

Clock = Callable[[float], None]


class Held:
    """Requests in progress, each ended by its number."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._open: list[ExitStack] = []

    def take(self, caller: str, tokens: int, priority: Priority = "interactive") -> bool:
        with as_caller(caller):
            stack = ExitStack()
            try:
                stack.enter_context(self._admission.admit(tokens, priority))
            except Overloaded:
                return False
            self._open.append(stack)
            return True

    def end(self, place: int = 0) -> None:
        self._open.pop(place).close()


@contextmanager
def as_caller(name: str) -> Iterator[None]:
    token = CALLER.set(name)
    try:
        yield
    finally:
        CALLER.reset(token)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def test_one_key_alone_has_everything() -> None:
    held = Held(Admission(100))
    assert [held.take("a", 25) for _ in range(5)] == [True] * 4 + [False]


def test_two_keys_have_half_each() -> None:
    held = Held(Admission(100))
    assert held.take("b", 10)
    assert [held.take("a", 25) for _ in range(3)] == [True, True, False]
    assert [held.take("b", 20) for _ in range(3)] == [True, True, False]


def test_a_key_that_fills_everything_gives_way_to_one_that_was_refused(clock: Clock) -> None:
    held = Held(Admission(100))
    assert all(held.take("a", 25) for _ in range(4))
    assert not held.take("b", 25)
    held.end()
    assert not held.take("a", 25)
    assert held.take("b", 25)


def test_a_refused_key_that_does_not_come_back_is_forgotten(clock: Clock) -> None:
    held = Held(Admission(100))
    assert all(held.take("a", 25) for _ in range(4))
    assert not held.take("b", 25)
    held.end()
    clock(40)
    assert held.take("a", 25)


def test_a_key_that_holds_nothing_gets_in_with_more_than_its_share() -> None:
    held = Held(Admission(100))
    assert held.take("a", 50)
    assert held.take("b", 90)
    assert not held.take("b", 1)


def test_a_key_beyond_its_share_is_told_so() -> None:
    admission = Admission(100)
    held = Held(admission)
    assert held.take("a", 40)
    assert held.take("b", 10)
    told = "this request needs about 11, its key has 40 of them, and its share of the limit of 100 is 50 "
    with as_caller("a"), pytest.raises(Overloaded, match=told), admission.admit(11):
        pass


def test_batch_leaves_half_to_interactive() -> None:
    held = Held(Admission(100))
    assert [held.take("a", 25, "batch") for _ in range(3)] == [True, True, False]
    assert [held.take("a", 25) for _ in range(3)] == [True, True, False]


def test_batch_alone_is_let_in_however_large() -> None:
    assert Held(Admission(100)).take("a", 1000, "batch")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60), st.booleans()), max_size=40))
def test_every_key_gets_a_request_in_as_others_end(asked: list[tuple[str, int, bool]]) -> None:
    """Whatever went before: a key without work gets in once the others are within their shares."""
    admission = Admission(100)
    held = Held(admission)
    for caller, tokens, end in asked:
        if not held.take(caller, tokens) and end:
            held.end()
    tries = 0
    while not held.take("new", 60):
        held.end()
        tries += 1
    assert tries <= len(asked)
    while admission.held:
        held.end()
    assert admission._by_caller == {}
