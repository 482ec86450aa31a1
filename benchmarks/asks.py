"""What is asked of every contestant, before any of them has put it into its own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["embedder", "reranker"]
ROLES: tuple[Role, ...] = ("embedder", "reranker")


@dataclass(frozen=True, slots=True)
class Item:
    """A text, an image file or the frames of one video (JPEG or PNG files); one of them."""

    text: str | None = None
    image: bytes | None = None
    frames: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Embed:
    """One embedding request."""

    items: tuple[Item, ...]

    @property
    def count(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Rerank:
    """One rerank request; its items are its documents."""

    query: Item
    documents: tuple[Item, ...]

    @property
    def count(self) -> int:
        return len(self.documents)


Ask: TypeAlias = Embed | Rerank


def narrowed(ask: Ask, places: tuple[int, ...]) -> Ask:
    """The same request with only the items at `places`."""
    if isinstance(ask, Embed):
        return Embed(tuple(ask.items[place] for place in places))
    return Rerank(ask.query, tuple(ask.documents[place] for place in places))


def spread(count: int, most: int) -> tuple[int, ...]:
    """At most `most` places among `count`, from the first to the last."""
    if count <= most:
        return tuple(range(count))
    return tuple(round(step * (count - 1) / max(1, most - 1)) for step in range(most))
