"""The grid: what is varied, and the floor of each row.

A floor is on what is lost against float32, so it holds for any checkpoint: nDCG@10, mean over the tasks, and
the correlation of the scores, of the worst task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.asks import ROLES, Role
from qvl.engine.dialects.vectors import Dtype
from qvl.engine.quantize.schemes import Scheme


@dataclass(frozen=True, kw_only=True)
class Floor:
    loss: float
    """nDCG@10 that may be lost."""
    correlation: float
    scores: float = 0.0
    """The same of the reranker's scores, where it is run."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """An engine of its own."""

    name: str
    floor: Floor
    scheme: Scheme | None = None
    """Of `qvl quantize`; the checkpoint is quantised first."""
    vision: bool = False
    """Its vision tower too."""
    engine: Mapping[str, Any] = field(default_factory=dict)
    """Settings of EngineConfig; the dtype is bfloat16 where they do not name one."""
    half: bool = False
    """Pictures at half their pixels."""
    roles: tuple[Role, ...] = ROLES


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What an index keeps of the vectors of the checkpoint's own dtype."""

    name: str
    floor: Floor
    query: Dtype = "float32"
    document: Dtype = "float32"
    share: float = 1.0
    """Of the dimensions."""


SAME = Floor(loss=0.005, correlation=0.999, scores=0.999)
EIGHT = Floor(loss=0.01, correlation=0.99, scores=0.98)
SERVED = (
    Served(
        name="float32",
        floor=Floor(loss=0.002, correlation=0.99999, scores=0.99999),
        engine={"dtype": "float32"},
    ),
    Served(name="bfloat16", floor=SAME),
    Served(
        name="prefix caching on",
        floor=SAME,
        engine={"prefix_caching": True},
        roles=("embedder",),
    ),
    Served(
        name="prefix caching off",
        floor=SAME,
        engine={"prefix_caching": False},
        roles=("reranker",),
    ),
    # The demo's pages, a fifth of the tasks, are written so small that half their pixels cannot be read.
    Served(name="half the pixels", floor=Floor(loss=0.22, correlation=-0.2), half=True),
    Served(name="INT8 W8A8", floor=EIGHT, scheme="int8"),
    Served(name="INT8 W8A8, vision too", floor=EIGHT, scheme="int8", vision=True),
    Served(name="W4A16 AWQ", floor=Floor(loss=0.02, correlation=0.98, scores=0.6), scheme="awq"),
    Served(name="FP8 W8A8", floor=EIGHT, scheme="fp8"),
    Served(name="FP8 W8A8, vision too", floor=EIGHT, scheme="fp8", vision=True),
    Served(name="FP8 while loading", floor=EIGHT, engine={"quantization": "fp8", "quantize_vision": True}),
)
PLAIN = "bfloat16"
"""The row whose vectors are stored."""

TIGHT = Floor(loss=0.01, correlation=0.998)
BITS = Floor(loss=0.06, correlation=0.85)
STORED = (
    Stored(name="float16 vectors", floor=TIGHT, query="float16", document="float16"),
    Stored(name="int8 vectors", floor=TIGHT, query="int8", document="int8"),
    Stored(name="int8 documents, float queries", floor=TIGHT, document="int8"),
    Stored(name="uint8 vectors", floor=TIGHT, query="uint8", document="uint8"),
    Stored(name="binary vectors", floor=BITS, query="binary", document="binary"),
    Stored(name="ubinary vectors", floor=BITS, query="ubinary", document="ubinary"),
    Stored(name="binary documents, float queries", floor=BITS, document="binary"),
    Stored(name="1/2 of the dimensions", floor=Floor(loss=0.02, correlation=0.9), share=1 / 2),
    Stored(name="1/4 of the dimensions", floor=Floor(loss=0.03, correlation=0.77), share=1 / 4),
    Stored(name="1/8 of the dimensions", floor=Floor(loss=0.06, correlation=0.6), share=1 / 8),
    Stored(name="1/16 of the dimensions", floor=Floor(loss=0.15, correlation=0.5), share=1 / 16),
    Stored(
        name="1/2 of the dimensions, int8",
        floor=Floor(loss=0.02, correlation=0.9),
        query="int8",
        document="int8",
        share=1 / 2,
    ),
)
