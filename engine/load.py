"""The models of one replica, from their files to engines that answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import count
from multiprocessing import active_children
from threading import Event

from qvl.engine import compat
from qvl.engine.errors import CheckpointError
from qvl.engine.llm import LLM
from qvl.engine.sockets import named_sockets

_log = logging.getLogger("qvl.engine")
_TOLD_SECONDS = 10.0
"""Between two words that it still loads."""
_LOOK_SECONDS = 0.1
"""Between two looks for the process of an engine that is being loaded."""


async def load(starts: Sequence[Callable[[], LLM]], models: list[LLM]) -> None:
    """Append to `models`, and open them in order. Whatever it raises, those in `models` are to be stopped."""
    telling = asyncio.create_task(_tell())
    try:
        with named_sockets():
            await _append(starts, models)
            for model in models:
                await model.open()
    finally:
        telling.cancel()


async def _tell() -> None:
    for told in count(1):
        await asyncio.sleep(_TOLD_SECONDS)
        _log.info("still loading, %.0f s so far", told * _TOLD_SECONDS)


async def _append(starts: Sequence[Callable[[], LLM]], models: list[LLM]) -> None:
    """One after the other: two memory profiles on one GPU would disturb each other.

    On a CPU, where no profile is made and most of the time goes into imports, the next begins once the engine
    process of the one before is there: from then on this process only waits for it.
    """
    given_up = Event()

    def keep(start: Callable[[], LLM]) -> LLM:
        """In a thread, which cannot be cancelled."""
        with named_sockets():  # `load` may be left before
            model = _started(start)
        models.append(model)
        if given_up.is_set():  # perhaps too late for who stops those in `models`
            asyncio.run(model.stop())
        return model

    loading: list[asyncio.Future[LLM]] = []
    try:
        for start in starts:
            known = active_children()
            loading.append(newest := asyncio.ensure_future(asyncio.to_thread(keep, start)))
            while not newest.done() and not (compat.on_cpu() and set(active_children()).difference(known)):
                await asyncio.wait([newest], timeout=_LOOK_SECONDS)
            if newest.done() and newest.exception():
                break
        done = await asyncio.gather(*loading, return_exceptions=True)
    except asyncio.CancelledError:
        given_up.set()
        for each in loading:
            each.cancel()  # or asyncio would tell that nobody looked at its error
        raise
    models[:] = [each for each in done if isinstance(each, LLM)]
    if errors := [each for each in done if isinstance(each, BaseException)]:
        raise errors[0]


def _started(start: Callable[[], LLM]) -> LLM:
    """Twice where some connection of this machine may have had the engine's port: only its own log tells."""
    try:
        return start()
    except CheckpointError as error:
        if not compat.takes_its_port_late():
            raise
        _log.warning("%s; it is tried once more", error)
    return start()
