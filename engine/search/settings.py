"""Where the index is and how it keeps vectors. Its fields are the CLI's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qvl.engine.config import check_numbers
from qvl.engine.errors import ConfigError

if TYPE_CHECKING:
    from qvl.engine.search.index import Index


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the index is."""

    index: str | None = None
    """Folder of the index, or Qdrant, as http://HOST:6333/COLLECTION."""
    index_key: str | None = None
    """API key of that Qdrant."""

    def open(self, *, writable: bool = False) -> Index:
        """Raises ConfigError, one line, and Unavailable, as `open_index` does."""
        from qvl.engine.search.open import open_index

        if self.index is None:
            raise ConfigError("no index: give --index a folder, or http://HOST:6333/COLLECTION of Qdrant")
        return open_index(self.index, key=self.index_key, writable=writable)


@dataclass(frozen=True, kw_only=True)
class VectorConfig:
    """How an index keeps its vectors; fixed when it is made."""

    vectors: Literal["int8", "float16", "float32"] | None = None
    """Numbers of the vectors (default: int8, a quarter of float32's room)."""
    dimensions: int | None = None
    """Matryoshka prefix of the vectors that is kept (default: all)."""
    prefix: int | None = None
    """Shorter prefix that recall compares, and that lies in memory (default: what is kept)."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class AskConfig:
    """One question to an index."""

    top_n: int = 10
    """Results shown."""
    recall: int = 100
    """Candidates that the vectors pick, for the reranker to order."""
    rerank: bool | None = None
    """Order the candidates by the reranker (default: when there is one)."""
    filter: str | None = None
    """JSON of what the metadata must be: '{"kind": ["page", "image"], "day": {"gte": "2024-05-01"}}'; bounds
    are gt, gte, lt and lte, for numbers and texts (Qdrant: numbers and dates)."""
    instruction: str | None = None
    """What makes an item fit, for both models."""
    json: bool = False
    """Print the answer as JSON, as the server's."""

    def __post_init__(self) -> None:
        check_numbers(self)
