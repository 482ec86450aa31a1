"""The models that answer when none is named: the trained pair of this package."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "pair"


def bundled_pair() -> tuple[Path, Path]:
    """Embedder and reranker, trained on the demo's world; see the card beside them."""
    return FOLDER / "embedder", FOLDER / "reranker"
