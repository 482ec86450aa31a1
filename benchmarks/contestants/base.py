"""What the harness needs to know of a server."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.asks import Ask, Item, Role
from benchmarks.load import Shot
from qvl.engine.checkpoint import Checkpoint
from qvl.engine.cpu_cache import cache_bytes

Answer: TypeAlias = npt.NDArray[np.float32]
"""(items, dimensions) of vectors, or (documents,) of scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One model on this machine, in the share of it that each contestant gets."""

    checkpoint: Checkpoint
    gpu: bool
    dtype: str
    gpu_share: float
    """Of the GPU's memory."""
    quantization: str | None = None

    @property
    def role(self) -> Role:
        return self.checkpoint.role

    @property
    def folder(self) -> Path:
        return self.checkpoint.path

    @property
    def kv_bytes(self) -> int:
        """Of a CPU engine's KV cache: `qvl serve`'s, for all contestants."""
        return cache_bytes(self.checkpoint, self.dtype)

    @property
    def environment(self) -> Mapping[str, str]:
        """For every contestant alike: no telemetry, no network; on a CPU one engine process and one
        OpenMP thread each, without which it is three processes that spin on two cores."""
        common = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        common |= {"PYTHONWARNINGS": "ignore", "TOKENIZERS_PARALLELISM": "true"}
        if not self.gpu:
            common |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1"}
        return common


class Contestant(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def health(self) -> str:
        """The path that answers 200 once requests are taken."""
        ...

    def command(self, site: Site, port: int) -> Sequence[str]: ...
    def shot(self, site: Site, ask: Ask) -> Shot: ...
    def answer(self, body: bytes) -> Answer: ...


def url(file: bytes) -> str:
    kind = "png" if file.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


def texts_only(items: Sequence[Item]) -> bool:
    return all(item.text is not None for item in items)


def vectors(reply: Mapping[str, Any]) -> Answer:
    """From OpenAI's shape with base64."""
    rows = sorted(reply["data"], key=lambda entry: entry["index"])
    return np.stack([np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in rows])


def ranked(reply: Mapping[str, Any]) -> Answer:
    """From Jina's and vLLM's rerank shape."""
    rows = sorted(reply["results"], key=lambda entry: entry["index"])
    return np.array([row["relevance_score"] for row in rows], dtype=np.float32)
