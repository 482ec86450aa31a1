"""How far a quantised checkpoint's answers are from the original's, by Hugging Face's code on both.

Another reader of the same files: what vLLM's kernels make of them is for `python -m benchmarks.quality`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qvl.engine.checkpoint import Role
from qvl.engine.errors import CheckpointError
from qvl.engine.prepare import Ready
from qvl.engine.quantize.tensors import tensors
from qvl.engine.text_side import TextSide

_SMALL = 50_000_000


@dataclass(frozen=True)
class Quality:
    role: Role
    mean: float
    """Cosine of the vectors, or difference of the scores."""
    worst: float
    low: float
    """The quantised reranker's lowest and highest score."""
    high: float

    def __str__(self) -> str:
        if self.role == "embedder":
            return f"cosine with the original {self.mean:.5f}, at worst {self.worst:.5f}"
        return (
            f"scores {self.mean:.4f} from the original's, at worst {self.worst:.4f}; "
            f"they spread from {self.low:.3f} to {self.high:.3f}"
        )


def load(folder: Path) -> Any:
    """On the GPU in bfloat16, without one in float32. Of a quantised checkpoint the weights are widened, and
    activations are rounded as they will be in serving."""
    from compressed_tensors.compressors import decompress_module
    from transformers import Qwen3VLForConditionalGeneration

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=dtype).to(device).eval()
    for module in model.modules():
        decompress_module(module)
    return model


@contextmanager
def within_memory() -> Iterator[None]:
    """Raises CheckpointError when the memory is too small. A CPU's says so by no class of its own."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and "can't allocate memory" not in str(error):
            raise
        raise CheckpointError(
            "out of memory: the whole model must fit, in bfloat16 on a GPU, in float32 without one"
        ) from error


@contextmanager
def threads(model: Any) -> Iterator[None]:
    """One for a small model: on a busy machine, cores that wait for each other cost more than they add."""
    before = torch.get_num_threads()
    if sum(each.numel() for each in model.parameters()) < _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def last_states(model: Any, examples: Sequence[Ready]) -> torch.Tensor:
    """(examples, hidden) in float32."""
    config = model.config.to_dict()
    rows = []
    with torch.inference_mode(), threads(model):
        for ready in examples:
            batch = tensors([ready.prompt.ids], [ready.visuals], config)
            batch = {name: each.to(model.device) for name, each in batch.items()}
            rows.append(model.model(**batch, use_cache=False).last_hidden_state[0, -1])
    return torch.stack(rows).float()


@within_memory()
def answers(folder: Path, side: TextSide, role: Role, examples: Sequence[Ready]) -> torch.Tensor:
    """Vectors (examples, hidden), not of unit length, or scores (examples,); the model is let go."""
    model = load(folder)
    states = last_states(model, examples)
    if role == "embedder":
        return states
    rows = model.lm_head.weight.detach()[[side.yes, side.no]].float()
    return torch.sigmoid(states @ (rows[0] - rows[1]))


def compare(role: Role, true: torch.Tensor, got: torch.Tensor) -> Quality:
    """Of `answers`: the original's and the quantised checkpoint's."""
    if role == "embedder":
        cosines = torch.nn.functional.cosine_similarity(true, got)
        return Quality(role, float(cosines.mean()), float(cosines.min()), 0, 0)
    off = (got - true).abs()
    return Quality(role, float(off.mean()), float(off.max()), float(got.min()), float(got.max()))
