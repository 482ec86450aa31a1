"""What is told of an engine that did not start."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from qvl.engine.errors import CheckpointError, NotStarted, Unavailable
from qvl.engine.failure import not_started
from qvl.engine.model.last_words import FILE, LastWords, heard


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("Engine core initialization failed"), NotStarted),
        (OSError("Address already in use"), NotStarted),
        (Unavailable("the model's engine process has died"), NotStarted),
        (ValueError("no such dtype"), CheckpointError),
        (TypeError("no such argument"), CheckpointError),
    ],
    ids=lambda each: getattr(each, "__name__", type(each).__name__),
)
def test_what_may_pass_is_told_apart(error: Exception, kind: type[CheckpointError]) -> None:
    found = not_started("m: the engine did not start", error)
    assert type(found) is kind
    assert str(found) == f"m: the engine did not start: {error}"


def test_a_cause_is_told_in_place_of_where_to_look_for_it() -> None:
    error = RuntimeError("Engine core initialization failed. Failed core proc(s): {'EngineCore_0': 1}")
    assert str(not_started("m", error, "ValueError: no memory")) == "m: ValueError: no memory"
    killed = RuntimeError("Engine core initialization failed. Failed core proc(s): {'EngineCore_0': -9}")
    assert "memory" in str(not_started("m", killed))


def test_the_first_exception_is_the_cause_and_the_others_follow_from_it() -> None:
    log = logging.getLogger("tests.last_words")
    with heard() as cause:
        handlers = [LastWords(os.environ[FILE]) for _ in range(2)]
        for handler in handlers:
            log.addHandler(handler)
        try:
            assert cause() == ""
            log.error("no exception")
            for error in (ValueError("no memory\nat all"), RuntimeError("it failed")):
                log.error("it ends", exc_info=error)
            assert cause() == "ValueError: no memory"
        finally:
            for handler in handlers:
                log.removeHandler(handler)
    assert FILE not in os.environ


def test_an_assertion_that_says_nothing_is_quoted() -> None:
    with heard() as cause:
        words = LastWords(os.environ[FILE])
        try:
            assert [] == [1], ""
        except AssertionError as error:
            words.handle(logging.makeLogRecord({"exc_info": (type(error), error, error.__traceback__)}))
        assert cause().startswith("AssertionError: ")


def test_of_two_models_that_load_at_once_each_has_its_own() -> None:
    with heard() as first:
        before = os.environ[FILE]
        with ThreadPoolExecutor(1) as pool:
            second = heard()
            told = pool.submit(second.__enter__).result()
            assert os.environ[FILE] != before
            record = logging.makeLogRecord({"exc_info": (OSError, OSError("full"), None)})
            LastWords(os.environ[FILE]).handle(record)
            assert (first(), told()) == ("", "OSError: full")
            pool.submit(second.__exit__, None, None, None).result()
    assert FILE not in os.environ
