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
    return engine


def rest_collector() -> None:
    """In a process that vLLM has spawned, where the main module comes first, under another name: nothing is
    collected while vLLM is imported, until it calls `model.plugin.register`, which freezes what is there."""
    if sys.modules.get("__mp_main__") not in (None, sys.modules["__main__"]):
        gc.disable()
