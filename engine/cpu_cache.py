"""How much of a CPU's memory a model's KV cache takes: vLLM wants to be told, and fails, once all weights are
loaded, where what it is told is not free."""

from __future__ import annotations

from qvl.engine.checkpoint import Checkpoint
from qvl.engine.errors import ConfigError
from qvl.engine.machine import host_memory
from qvl.engine.weights import size

_SEQUENCES = 8
"""Longest items that a cache holds at once, where there is room."""
_LEAST = 64 << 20
_PROCESS = 3 << 29
"""An engine's own, besides its weights and its cache."""
_ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
_GIB = 1 << 30


def cache_bytes(checkpoint: Checkpoint, dtype: str, *, part: float = 1) -> int:
    """Half of what the weights leave, but room for one longest item and no more than for eight.

    `part`: of the machine's memory, for this model. Raises ConfigError where one longest item does not fit.
    """
    own = _ITEMSIZE.get(checkpoint.dtype, 2)
    itemsize = own if dtype == "auto" else _ITEMSIZE[dtype]
    longest = checkpoint.kv_bytes_per_token(itemsize) * checkpoint.max_length
    weights = size(checkpoint.path)
    if "quantization_config" not in checkpoint.config:
        weights = weights * itemsize // own
    memory = int(host_memory() * part)
    free = memory - weights - _PROCESS
    if longest > max(free, _LEAST):
        raise ConfigError(
            f"{checkpoint.name}: {weights / _GIB:.1f} GiB of weights, {_PROCESS / _GIB:.1f} of their process "
            f"and {longest / _GIB:.1f} for an item of {checkpoint.max_length} tokens are more than the "
            f"{memory / _GIB:.1f} GiB of memory that a model can have here: "
            + (
                "say --dtype bfloat16"
                if itemsize == 4
                else "take fewer --replicas, larger shares (--embedder-memory), a smaller model, or a GPU"
            )
        )
    return max(_LEAST, min(_SEQUENCES * longest, max(longest, free // 2)))
