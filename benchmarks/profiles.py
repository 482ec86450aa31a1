"""How much of each workload is run where: the CPU set on the tiny model, the GPU set on real dimensions, the
serving set on a model of one layer, which costs next to nothing: what is seen is everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

Mode: TypeAlias = Literal["closed", "open", "offline"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of pictures in pixels, of texts in tokens without the template."""

    photo: int = 1024
    small: int = 224
    frames: int = 16
    frame: tuple[int, int] = (640, 448)
    """(width, height), multiples of 64 within everyone's limits, so that no two resizers disagree."""
    documents: int = 100
    document_tokens: int = 256
    image_documents: int = 20
    image_document: int = 1024


@dataclass(frozen=True, kw_only=True)
class Load:
    """How one workload is driven."""

    closed: tuple[int, ...]
    """Requests in flight, one row for each."""
    most: float
    """Requests per second that no contestant exceeds: so many are made before the clock starts."""
    offline: int = 0
    """Requests handed over at once in offline mode (0: no offline row)."""
    bound_ms: float | None = None
    """p99 to keep in open loop (None: no open-loop row)."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One set."""

    name: str
    gpu: bool
    dtype: str
    seconds: float
    """Measured for each row and contestant, all rounds together."""
    rounds: int
    """Turns that the contestants take at each row, in alternating order."""
    clients: int
    """Client processes (1: the harness itself)."""
    probe_seconds: float
    """One rate of the open-loop search, at least; ten times the bound where that is more."""
    start_seconds: float = 300.0
    """For a server to answer its health check."""
    sizes: Sizes = field(default_factory=Sizes)
    loads: Mapping[str, Load]
    modes: tuple[Mode, ...] = ("closed", "open", "offline")


CPU = Profile(
    name="cpu",
    gpu=False,
    dtype="float32",
    seconds=3.0,
    rounds=2,
    clients=1,
    probe_seconds=3.0,
    sizes=Sizes(frame=(448, 320), document_tokens=64, image_document=224),
    loads={
        "short": Load(closed=(1, 8, 64), most=1500, offline=400, bound_ms=250),
        "short-64": Load(closed=(2,), most=60),
        "passages": Load(closed=(8,), most=200),
        "long": Load(closed=(2,), most=60),
        "photos": Load(closed=(1, 4), most=40, offline=8),
        "photos-repeated": Load(closed=(4,), most=1000),
        "small": Load(closed=(1, 64), most=400),
        "pages-png": Load(closed=(2,), most=15),
        "pages-jpeg": Load(closed=(2,), most=20),
        "mixed": Load(closed=(4,), most=60),
        "video": Load(closed=(2,), most=15),
        "rerank-text": Load(closed=(1,), most=6),
        "rerank-image-query": Load(closed=(1,), most=6),
        "rerank-image-query-repeated": Load(closed=(1,), most=6),
        "rerank-images": Load(closed=(1,), most=12),
        "rerank-images-repeated": Load(closed=(1,), most=40),
    },
)
SERVING = replace(
    CPU,
    name="serving",
    modes=("closed",),
    loads={
        "short": Load(closed=(1, 16, 256), most=4000),
        "short-64": Load(closed=(8,), most=200),
        "passages": Load(closed=(1, 16), most=1500),
        "small": Load(closed=(1, 16), most=700),
        "photos-repeated": Load(closed=(4,), most=1000),
        "rerank-text": Load(closed=(2,), most=30),
        "rerank-image-query": Load(closed=(1,), most=30),
    },
)
GPU = Profile(
    name="gpu",
    gpu=True,
    dtype="bfloat16",
    seconds=6.0,
    rounds=2,
    clients=4,
    probe_seconds=10.0,
    modes=("closed",),
    loads={
        "short": Load(closed=(1, 256), most=6000, offline=20000, bound_ms=250),
        "short-64": Load(closed=(8,), most=200),
        "passages": Load(closed=(64,), most=700, offline=2000, bound_ms=500),
        "long": Load(closed=(32,), most=200),
        "photos": Load(closed=(1, 64), most=150, offline=400, bound_ms=2000),
        "photos-repeated": Load(closed=(64,), most=300),
        "small": Load(closed=(64,), most=1200),
        "pages-png": Load(closed=(16,), most=80),
        "pages-jpeg": Load(closed=(16,), most=80),
        "mixed": Load(closed=(32,), most=300),
        "video": Load(closed=(8,), most=40),
        "rerank-text": Load(closed=(4,), most=20, offline=40, bound_ms=1500),
        "rerank-image-query": Load(closed=(2,), most=20),
        "rerank-image-query-repeated": Load(closed=(2,), most=20),
        "rerank-images": Load(closed=(4,), most=6),
        "rerank-images-repeated": Load(closed=(4,), most=30),
    },
)
