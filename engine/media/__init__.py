"""Images and videos: from what a request names to pixels that equal the reference's.

Names load on first use: `source` is read by commands that need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qvl.engine.media.loader import MediaLoader
    from qvl.engine.media.visual import Visual

_HOMES = {"MediaLoader": "loader", "Visual": "visual"}

__all__ = ["MediaLoader", "Visual"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
