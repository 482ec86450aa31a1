"""One replica: an embedder and/or a reranker behind one HTTP server.

    from qvl.engine import Engine, EngineConfig

Names load on first use, so that `import qvl.engine.client` stays free of torch and vLLM.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qvl.engine.config import EngineConfig, Limits, MediaConfig, ServerConfig
    from qvl.engine.engine import Engine
    from qvl.engine.protocol import Content, EmbedRequest, EmbedResult, RerankRequest, RerankResult

_HOMES = {
    "Engine": "engine",
    "EngineConfig": "config",
    "Limits": "config",
    "MediaConfig": "config",
    "ServerConfig": "config",
    "Content": "protocol",
    "EmbedRequest": "protocol",
    "EmbedResult": "protocol",
    "RerankRequest": "protocol",
    "RerankResult": "protocol",
}

__all__ = [
    "Content",
    "EmbedRequest",
    "EmbedResult",
    "Engine",
    "EngineConfig",
    "Limits",
    "MediaConfig",
    "RerankRequest",
    "RerankResult",
    "ServerConfig",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
