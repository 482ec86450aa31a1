"""Models that are being loaded when nobody wants them any more. (Real ones: tests/system/test_start.py.)"""

from __future__ import annotations

import asyncio
import logging
import time
from threading import Event

import pytest

from qvl.engine import compat
from qvl.engine.errors import CheckpointError
from qvl.engine.llm import LLM
from qvl.engine.load import load
from tests.parity.conftest import vllm_warnings


class Model(LLM):
    """One that takes as long as it is told to."""

    def __init__(self, go_on: Event | None = None) -> None:
        self.stops = 0
        self.opened = False
        self.begun = Event()
        self._go_on = go_on

    def loaded(self) -> LLM:
        self.begun.set()
        if self._go_on:
            self._go_on.wait(60)
        return self

    async def open(self) -> None:
        self.opened = True

    async def stop(self) -> None:
        self.stops += 1


def test_models_are_opened_in_order() -> None:
    both, models = [Model(), Model()], []
    asyncio.run(load([each.loaded for each in both], models))
    assert models == both
    assert all(each.opened for each in both)


def test_a_long_start_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            go_on.set()

    monkeypatch.setattr("qvl.engine.load._TOLD_SECONDS", 0.01)
    heard, log = Heard(), logging.getLogger("qvl.engine")
    log.addHandler(heard)
    try:
        with caplog.at_level(logging.INFO, "qvl.engine"):
            asyncio.run(load([Model(go_on).loaded], []))
    finally:
        log.removeHandler(heard)
    assert caplog.messages[0].startswith("still loading, ")


def test_one_that_does_not_load_is_told_and_the_others_are_known() -> None:
    def broken() -> LLM:
        raise CheckpointError("no")

    good, models = Model(), []
    with pytest.raises(CheckpointError, match="no"):
        asyncio.run(load([good.loaded, broken], models))
    assert models == [good]
    assert not good.opened


@pytest.mark.parametrize("port", [True, False])
def test_where_vllm_takes_a_port_late_it_is_tried_twice(monkeypatch: pytest.MonkeyPatch, port: bool) -> None:
    with vllm_warnings():
        from vllm.utils import network_utils
    starts: list[LLM] = []

    def taken_at_first() -> LLM:
        starts.append(Model())
        if len(starts) == 1:
            raise CheckpointError("the engine did not start")
        return starts[-1]

    name = "get_file_store_init_method"
    if port:
        monkeypatch.delattr(network_utils, name, raising=False)
        asyncio.run(load([taken_at_first], []))
    else:
        monkeypatch.setattr(network_utils, name, None, raising=False)
        with pytest.raises(CheckpointError):
            asyncio.run(load([taken_at_first], []))
    assert len(starts) == 1 + port


def test_one_that_comes_too_late_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, one after the other: the first is there, the second in its thread."""
    monkeypatch.setattr(compat, "on_cpu", lambda: False)
    go_on = Event()
    there, late, models = Model(), Model(go_on), []

    async def cancelled() -> None:
        loading = asyncio.ensure_future(load([there.loaded, late.loaded], models))
        while not models:  # noqa: ASYNC110 - it is told of nothing
            await asyncio.sleep(0.01)
        await asyncio.to_thread(late.begun.wait, 60)
        loading.cancel()
        await asyncio.wait([loading], timeout=60)
        assert loading.cancelled()
        assert models == [there]  # which `Engine.start` stops
        go_on.set()
        end = time.monotonic() + 60
        while not late.stops and time.monotonic() < end:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)

    asyncio.run(cancelled())
    assert (there.stops, late.stops) == (0, 1)
    assert not there.opened
