"""An engine for a process that is there for it, and the garbage collector.

torch's and vLLM's imports leave a million objects that stay. To walk over them takes most of a second each
time: again and again while they come, then under requests, and once more at the end.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

from qvl.engine.config import EngineConfig

if TYPE_CHECKING:
    from qvl.engine.engine import Engine
    from qvl.engine.metrics import Metrics

_YOUNG = 10_000
"""Objects that have come before the collector looks at them; Python's 700 cost a short text 5 % of its time.
Requests leave nothing for it, refused ones neither (`QvlError.bare`)."""


async def start_engine(config: EngineConfig, metrics: Metrics | None = None) -> Engine:
    """`Engine.start`, with nothing collected meanwhile, and what is there by then never walked over again."""
    gc.disable()
    try:
        # Imported here: torch takes seconds, and a server's port answers before that.
        from qvl.engine.engine import Engine

        engine = await Engine.start(config, metrics)
    finally:
        gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
    return engine


def rest_collector() -> None:
    """In a process that vLLM has spawned, where the main module comes first, under another name: nothing is
    collected while vLLM is imported, until it calls `model.plugin.register`, which freezes what is there."""
    if sys.modules.get("__mp_main__") not in (None, sys.modules["__main__"]):
        gc.disable()
