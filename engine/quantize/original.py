"""The original model whole, as Hugging Face's code runs it: AWQ searches on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from qvl.engine.errors import CheckpointError
from qvl.engine.prepare import Ready
from qvl.engine.quantize.tensors import tensors

_SMALL = 50_000_000


def load(folder: Path) -> Any:
    """On the GPU in bfloat16, without one in float32."""
    from transformers import Qwen3VLForConditionalGeneration

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    return Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=dtype).to(device).eval()


def out_of_memory(error: BaseException) -> bool:
    """Of the GPU or of the machine, which torch says by no class of its own."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(error)


@contextmanager
def within_memory() -> Iterator[None]:
    """Raises CheckpointError when the memory is too small."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
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
