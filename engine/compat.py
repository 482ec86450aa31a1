"""Everything about vLLM, its settings and its end, that depends on its version or platform.

Covers 0.26 to 0.33. torch and vLLM are imported inside the functions: reading this file loads neither.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import Any, get_args

from qvl.engine import quantization
from qvl.engine.adapters import Adapter
from qvl.engine.checkpoint import Checkpoint
from qvl.engine.config import BUNDLED, SHARE, EngineConfig
from qvl.engine.cpu_cache import cache_bytes
from qvl.engine.errors import CheckpointError
from qvl.engine.family import STEP_TOKENS
from qvl.engine.machine import can_compile
from qvl.engine.model.plugin import ARCHITECTURE, FOLLOW
from qvl.engine.shares import share
from qvl.engine.text_side import TextSide

QUIET = "ignore::FutureWarning,ignore:resource_tracker:UserWarning"  # told of what it has just cleared away
_CPU_ENVIRONMENT = {
    FOLLOW: "1",
    # Without these a CPU engine is three processes that spin on two cores.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "1",
    # What vLLM compiles for a CPU it cannot load again (0.32); torch's own cache can.
    "VLLM_USE_AOT_COMPILE": "0",
    "PYTHONWARNINGS": QUIET,
}
_ENVIRONMENT = {
    FOLLOW: "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output is for answers
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "TOKENIZERS_PARALLELISM": "true",
    # Attention in float32 is a kernel that would round to TF32; other types know no such choice.
    "TRITON_F32_DEFAULT": "ieee",
    "TRANSFORMERS_VERBOSITY": "error",
}
_log = logging.getLogger("qvl.engine")
_NEWER = {"mm_device_do_normalize"}
"""Settings that the oldest vLLM lacks, and does not need."""
_DUMMY = {"width": 64, "height": 64}
"""Of the pictures that vLLM makes for itself on a CPU."""
_STOP_SECONDS = 3.0
"""For an engine process to end by itself."""
_LOOK_SECONDS = 0.01
"""Between two looks whether vLLM knows that it is to end."""


def on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def prepare_environment() -> None:
    """vLLM reads its environment at import: call before anything imports it. What is set stays."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING" if _log.isEnabledFor(logging.DEBUG) else "ERROR")
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    if on_cpu():
        for key, value in _CPU_ENVIRONMENT.items():
            os.environ.setdefault(key, value)


def engine_args(
    config: EngineConfig,
    checkpoint: Checkpoint,
    text: TextSide,
    *,
    pixels: str,
    shared: bool,
    adapters: Sequence[Adapter] = (),
) -> Any:
    """Every right setting for one role.

    `pixels` is the file that its pixels will be in; `shared`: another model is on the same device.
    """
    from vllm import AsyncEngineArgs
    from vllm.config import PoolerConfig

    from qvl.engine.model.pixels import PixelsFile

    dtype, part = _dtype(config, checkpoint), share(config, checkpoint.role, beside=shared)
    tokens = config.max_batched_tokens or (8192 if on_cpu() else STEP_TOKENS)
    settings: dict[str, Any] = {
        "model": str(checkpoint.path),
        "served_model_name": checkpoint.name,
        "runner": "pooling",
        "convert": "embed",
        "pooler_config": PoolerConfig(pooling_type="LAST"),
        "dtype": dtype,
        # One more than a prompt may have: 0.26's scheduler keeps a place for a token to be sampled, and a
        # prompt that fills the length and is taken in chunks would wait for it for ever.
        "max_model_len": checkpoint.max_length + 1,
        "hf_overrides": {
            "architectures": [ARCHITECTURE],
            "tie_word_embeddings": checkpoint.tied,
            "qvl_head": "embed" if checkpoint.role == "embedder" else "score",
            "qvl_yes": text.yes,
            "qvl_no": text.no,
        },
        "additional_config": PixelsFile(pixels),
        "tensor_parallel_size": config.tensor_parallel,
        # Not Ray, whatever surrounds it: the pixels are in this host's memory.
        "distributed_executor_backend": "mp" if config.tensor_parallel > 1 else None,
        "gpu_memory_utilization": part,
        # An embedder's shared prefix is shorter than a block; a reranker's holds the whole query.
        "enable_prefix_caching": (
            checkpoint.role == "reranker" if config.prefix_caching is None else config.prefix_caching
        ),
        "limit_mm_per_prompt": _media(config),
        # Ours are the only inputs and they are hashed by content; a second cache can only disagree.
        "mm_processor_cache_gb": 0,
        "mm_device_do_normalize": False,
        "disable_log_stats": True,
        "enable_log_requests": False,
        "max_num_batched_tokens": tokens,
        # vLLM's default for an embedded engine, 128, leaves a GPU's step half empty on short text.
        "max_num_seqs": min(tokens, 256 if on_cpu() else 1024),
        "enforce_eager": _eager(config, checkpoint),
        "scheduling_policy": "priority",
        "seed": 0,
    }
    settings |= _cpu_settings(checkpoint, dtype, part) if on_cpu() else {"async_scheduling": True}
    settings |= quantization.settings(config, checkpoint) | _lora_settings(adapters)
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    return AsyncEngineArgs(**{k: v for k, v in settings.items() if k in known or k not in _NEWER})


def _dtype(config: EngineConfig, checkpoint: Checkpoint) -> str:
    """vLLM's auto serves float32 in float16, whose range a fine-tune may leave."""
    if config.dtype != "auto" or checkpoint.dtype != "float32":
        return config.dtype
    from vllm.platforms import current_platform

    name = "bfloat16" if "torch.bfloat16" in map(str, current_platform.supported_dtypes) else "float32"
    _log.info("%s: its float32 weights are served in %s; --dtype says otherwise", checkpoint.name, name)
    return name


def takes_its_port_late() -> bool:
    """0.26: an engine picks a free port and takes it a second later, and by then another may have it."""
    from vllm.utils import network_utils

    return not hasattr(network_utils, "get_file_store_init_method")


async def shut_down(engine: Any) -> None:
    """End an `AsyncLLM` and its processes, which have nothing to save.

    On their way out they walk over all their objects for seconds. What is alone on a CPU holds nothing
    outside itself: it is killed as soon as vLLM knows that it is to end, and takes that for no crash.
    """
    client = engine.engine_core
    alone = on_cpu() and engine.vllm_config.parallel_config.world_size == 1
    processes = list(client.resources.engine_manager.processes) if alone else []
    ended = asyncio.ensure_future(asyncio.to_thread(engine.shutdown, timeout=_STOP_SECONDS))
    while processes and client._finalizer.alive:  # until then vLLM would report a crash
        if (await asyncio.wait([ended], timeout=_LOOK_SECONDS))[0]:
            break
    for process in processes:
        process.kill()
    await ended


def _lora_settings(adapters: Sequence[Adapter]) -> dict[str, Any]:
    """All adapters stay loaded: one that had to be fetched during a step would hold up everybody's."""
    if not adapters:
        return {}
    from vllm.config.lora import MaxLoRARanks
    from vllm.lora.peft_helper import PEFTHelper

    uneven = next((each.name for each in adapters if each.uneven), None)
    if uneven and "rank_pattern" not in {field.name for field in dataclasses.fields(PEFTHelper)}:
        raise CheckpointError(
            f"--lora {uneven}: this vLLM leaves out its rank_pattern and alpha_pattern; take vLLM 0.32, or "
            "merge it into the model"
        )
    most = max(each.rank for each in adapters)
    ranks = [rank for rank in get_args(MaxLoRARanks) if rank >= most]
    if not ranks:
        raise CheckpointError(f"--lora: vLLM takes ranks up to {max(get_args(MaxLoRARanks))}, not {most}")
    # Requests without an adapter have slot -1, which the CPU's kernels read as the last: it stays empty.
    slots = len(adapters) + on_cpu()
    return {"enable_lora": True, "max_loras": slots, "max_lora_rank": ranks[0]}


def lora_requests(adapters: Sequence[Adapter]) -> dict[str, Any]:
    """vLLM's own requests by name; none without adapters."""
    from vllm.lora.request import LoRARequest

    made = (LoRARequest(each.name, place, str(each.path)) for place, each in enumerate(adapters, 1))
    return {each.lora_name: each for each in made}


def _media(config: EngineConfig) -> dict[str, Any]:
    """Images and videos of a prompt: one of a rerank holds two items.

    vLLM's own are the largest: a GPU's memory is measured with them. A CPU's is not, and they would be
    prepared all the same, in this process, while the engine loads.
    """
    images, videos = config.limits.images * 2, config.limits.videos * 2
    if not on_cpu():
        return {"image": images, "video": videos}
    return {"image": {"count": images, **_DUMMY}, "video": {"count": videos, "num_frames": 2, **_DUMMY}}


def _cpu_settings(checkpoint: Checkpoint, dtype: str, part: float) -> dict[str, Any]:
    return {
        "kv_cache_memory_bytes": cache_bytes(checkpoint, dtype, part=min(1.0, part / SHARE)),
        "block_size": 32,
        "skip_mm_profiling": True,
    }


def _eager(config: EngineConfig, checkpoint: Checkpoint) -> bool:
    if config.enforce_eager is None and on_cpu() and not can_compile():
        _log.warning(
            "no C++ compiler or no Python.h: the model is not compiled and takes up to half as long again; "
            "install g++ and Python's headers, or say --enforce-eager"
        )
        return True
    return checkpoint.said == BUNDLED if config.enforce_eager is None else config.enforce_eager
