"""The nouns that travel between the rooms: what a request asks, what comes back.

Dialects map foreign JSON to requests, and results back. Nothing here knows HTTP, vLLM or torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from qvl.engine.errors import QvlError

Source: TypeAlias = str | bytes
"""One image or video file: a `data:` URL, bare base64, an http(s) or file URL, or its bytes."""

Video: TypeAlias = Source | tuple[Source, ...]
"""A video file, or its frames as images (sampled evenly to 64, taken as 2 frames per second)."""

PixelLimit: TypeAlias = tuple[Literal["image", "video", "frames"], str, int]
"""Of a medium: `min_pixels`, `max_pixels` or `total_pixels`, and what the caller says it is."""

OnError: TypeAlias = Literal["fail", "skip"]
Priority: TypeAlias = Literal["interactive", "batch"]
"""`batch` is refused first when much is in progress, and the model takes it after `interactive`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One item (or query, or document): its parts in the reference's order, videos, images, texts."""

    videos: tuple[Video, ...] = ()
    images: tuple[Source, ...] = ()
    texts: tuple[str, ...] = ()
    instruction: str | None = None
    """Overrides the request's instruction: an item's, or a query's; a document's has no effect."""
    fps: float | None = None
    """Frames per second sampled from video files (None: 1)."""
    max_frames: int | None = None
    """At most this many frames of a video file (None: 64)."""
    limits: tuple[PixelLimit, ...] = ()  # checked against the server's own, never set
    where: str = "input"
    """How the caller names this item in errors, e.g. `input[3]`, `query`, `documents[2]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """An item given as token ids: fed as they are, no template, no special tokens added."""

    ids: tuple[int, ...]
    where: str = "input"


class Token(NamedTuple):
    """Of a text, from character `start` to `stop`; or `special`: put there by the tokenizer."""

    id: int
    piece: str
    special: bool
    start: int
    stop: int


class Loaded(Protocol):
    """What a prompt and its ids need to know of a loaded image or video (media.Visual)."""

    @property
    def kind(self) -> Literal["image", "video"]: ...
    @property
    def timestamps(self) -> tuple[float, ...]: ...
    @property
    def grid(self) -> tuple[int, int, int]: ...
    @property
    def tokens(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    input: tuple[Content | Tokens, ...]
    model: str | None = None
    instruction: str | None = None
    """For items without one of their own (None: the model's default)."""
    documents: str | None = None
    """The field by which the caller says that the items are no queries."""
    dimensions: int | None = None
    """Matryoshka prefix, 1..full; the vector is normalised after the cut (None: full)."""
    truncate: bool = True
    """Cut an over-long text on the right, as the reference does; False: refuse it."""
    max_tokens: int | None = None
    """A length below the model's own, counted in tokens with the template."""
    on_error: OnError = "fail"
    priority: Priority = "interactive"


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    query: Content
    documents: tuple[Content, ...]
    model: str | None = None
    instruction: str | None = None
    truncate: bool = True
    max_tokens_per_document: int | None = None
    """Cut each document's text to this many tokens first."""
    on_error: OnError = "fail"
    priority: Priority = "interactive"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost; tokens are those the model saw, template included."""

    text_tokens: int = 0
    visual_tokens: int = 0
    images: int = 0
    videos: int = 0
    image_pixels: int = 0
    video_pixels: int = 0

    @property
    def total_tokens(self) -> int:
        return self.text_tokens + self.visual_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.text_tokens + other.text_tokens,
            self.visual_tokens + other.visual_tokens,
            self.images + other.images,
            self.videos + other.videos,
            self.image_pixels + other.image_pixels,
            self.video_pixels + other.video_pixels,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedResult:
    model: str
    vectors: npt.NDArray[np.float32]
    """(items, dimensions), L2-normalised, in input order; rows of failed items are zero."""
    usage: Usage
    errors: dict[int, QvlError] = field(default_factory=dict)
    """Item index to error; only with `on_error="skip"`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankResult:
    model: str
    logits: npt.NDArray[np.float32]
    """(documents,), yes minus no before the sigmoid, in document order; failed ones are -inf."""
    usage: Usage
    errors: dict[int, QvlError] = field(default_factory=dict)

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """sigmoid(logits), in (0, 1); failed documents are 0."""
        return 1.0 / (1.0 + np.exp(-self.logits.astype(np.float64)))

    def order(self, top_n: int | None = None) -> list[int]:
        """Best first, ties in document order, failed ones left out. By logits: two of them above 37 share the
        score 1.0."""
        order: list[int] = np.argsort(-self.logits, kind="stable").tolist()
        return [index for index in order if index not in self.errors][:top_n]


Scalar: TypeAlias = str | int | float | bool
"""A value of an item's metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What one field of an item's metadata must be: one of `values`, or a number or text within the bounds,
    which are all of one kind; texts go by their characters' numbers, as dates in ISO 8601 do.

    A field that is a list fits when one of its values does.
    """

    key: str
    values: tuple[Scalar, ...] = ()
    gt: float | str | None = None
    gte: float | str | None = None
    lt: float | str | None = None
    lte: float | str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    query: Content
    top_n: int = 10
    recall: int = 100
    """Candidates that the vectors pick, for the reranker to order."""
    where: tuple[Condition, ...] = ()
    """All of them must hold."""
    rerank: bool | None = None
    """None: when a reranker is served; True: an error when none is."""
    instruction: str | None = None
    """For both models, unless the query has its own (None: each model's usual one for queries)."""
    model: str | None = None
    reranker: str | None = None
    priority: Priority = "interactive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One item that was found."""

    id: str
    item: bytes
    """The item's JSON, as it was stored."""
    metadata: dict[str, Any]
    similarity: float
    """Cosine of its vector and the query's."""
    score: float | None = None
    """The reranker's, in (0, 1)."""
    error: QvlError | None = None
    """Why the reranker could not read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    hits: tuple[Hit, ...]
    """Best first; those that could not be reranked last."""
    model: str
    reranker: str | None
    """None: the order is that of the similarity."""
    note: str | None
    """Why it was not reranked, or how many candidates could not be read."""
    candidates: int
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """One served model, as `/v1/models` lists it; `also` is what else requests may call it."""

    id: str
    role: Literal["embedder", "reranker"]
    dimensions: int
    max_length: int
    dtype: str
    also: tuple[str, ...] = ()
    revision: str | None = None
    """The commit of the hub's that its files are from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    ready: bool
    reason: str = "ok"
    """Why not ready: `starting`, `draining`, or what died."""
