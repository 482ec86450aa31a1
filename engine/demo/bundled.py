"""The models that answer when none is named: the trained embedder of this package, and a reranker."""

from __future__ import annotations

from pathlib import Path

from qvl.engine.demo.tiny import write_pair


def embedder() -> Path:
    """Trained on the demo's world; see the card beside it."""
    return Path(__file__).parent / "pair" / "embedder"


def bundled_pair(cache: Path) -> tuple[Path, Path]:
    """The reranker is not trained yet: its weights are random, and it is written below `cache`."""
    return embedder(), write_pair(cache / "tiny")[1]
