"""What an index is to the rest: entries with vectors, on disk once `put` returns, found by both.

Every method blocks and may be called from many threads at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from qvl.engine.errors import ConfigError
from qvl.engine.protocol import Condition, Hit
from qvl.engine.search import canary

Dtype: TypeAlias = Literal["int8", "float16", "float32"]
Vectors: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What all vectors of an index have in common; fixed when the first one is put."""

    model: str
    """As it was called."""
    dimensions: int
    """Numbers kept of each vector: the model's own width or a Matryoshka prefix."""
    prefix: int
    """Numbers of each vector that recall compares; all `dimensions` are compared among the candidates."""
    canary: str
    """The model's own vector of a text of ours (`canary.py`), which tells whether it is the same."""
    dtype: Dtype = "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One item on its way into an index."""

    id: str
    digest: str
    """Of all that the entry says: an id with the same digest need not be put again."""
    item: bytes
    """JSON of the item: text, and media as references or inline."""
    metadata: Mapping[str, Any]


class Index(Protocol):
    @property
    def layout(self) -> Layout | None:
        """None: nothing has been put yet."""
        ...

    def prepare(self, layout: Layout) -> None:
        """Make room for such vectors. Raises IndexMismatch when there are others."""
        ...

    def known(self, ids: Sequence[str]) -> dict[str, str]:
        """The digests of those that are there."""
        ...

    def put(self, entries: Sequence[Entry], vectors: Vectors) -> None:
        """All of them or none, on disk when this returns; an id that was there is replaced."""
        ...

    def remove(self, ids: Sequence[str]) -> int:
        """Take them out; how many were there."""
        ...

    def find(self, vector: npt.NDArray[np.float32], count: int, where: Sequence[Condition]) -> list[Hit]:
        """The `count` most similar entries that fit, best first; `vector` has `dimensions` numbers."""
        ...

    def __len__(self) -> int: ...

    def load(self) -> None:
        """Before the first search, which would wait for it: what it needs, into memory."""
        ...

    def clear(self) -> None:
        """Forget everything, the layout too."""
        ...

    def close(self) -> None: ...


class IndexMismatch(ConfigError):
    """The index holds vectors of another model or kind."""


_WAYS = "keep to it, take another index, or --overwrite"


def agreed(kept: Layout | None, asked: Layout) -> Layout:
    """The layout to go on with. Raises IndexMismatch."""
    if kept is None:
        return asked
    same_model(kept, asked.model, asked.canary)
    for name in (field.name for field in fields(Layout) if field.name not in ("model", "canary")):
        was, now = getattr(kept, name), getattr(asked, name)
        if was != now:
            raise IndexMismatch(f"the index was made with {name} {was!r}, now {now!r}; {_WAYS}")
    return kept


def same_model(kept: Layout, model: str, vector: str) -> None:
    """By its vector of the canary, whatever it is called. Raises IndexMismatch."""
    if what := canary.strange(kept.canary, vector):
        raise IndexMismatch(
            f"the index holds vectors of another model (called {kept.model!r}) than {model!r} here: "
            f"{what}; {_WAYS}"
        )
