"""Weights in fewer bits than a model's own: what vLLM is told of them, and a refusal of what it would leave
undone or end at. Making a checkpoint of such weights is `quantize/`."""

from __future__ import annotations

from typing import Any

from qvl.engine.checkpoint import Checkpoint
from qvl.engine.config import EngineConfig
from qvl.engine.errors import CheckpointError, ConfigError

_VISION = r"re:.*visual\..*"
"""The layers of the vision tower and its mergers."""
_INT8 = "int-quantized"
"""compressed-tensors' name of 8-bit weights and activations."""


def settings(config: EngineConfig, checkpoint: Checkpoint) -> dict[str, Any]:
    """For vLLM. Raises ConfigError or CheckpointError, one line that says what to do."""
    name = config.quantization
    if own := checkpoint.config.get("quantization_config"):
        _check(config, checkpoint, own)
        return {"quantization": name}
    if name is None:
        return {}
    names = _while_loading()
    if name not in ("fp8", *names):
        raise ConfigError(
            f"quantization {name!r} does nothing to these models as they load: choose fp8 or one of vLLM's "
            f"{', '.join(names)}; or write a checkpoint with qvl quantize"
        )
    if name == "fp8":
        name = "fp8_per_channel" if _multiplies_fp8() else "fp8_per_tensor"
    ignored = {} if config.quantize_vision else {"quantization_config": {"ignore": [_VISION]}}
    return {"quantization": name, **ignored}


def _check(config: EngineConfig, checkpoint: Checkpoint, own: dict[str, Any]) -> None:
    """A checkpoint that is quantised says for itself how, and which of its layers."""
    name, method = config.quantization, own.get("quant_method")
    if config.quantize_vision or (name in ("fp8", *_while_loading()) and name != method):
        raise ConfigError(
            f"{checkpoint.name} is quantised already ({method}): drop --quantization and --quantize-vision"
        )
    if own.get("format") == _INT8 and _lacks_int8():
        raise CheckpointError(
            f"{checkpoint.name}: vLLM has no INT8 kernel for this GPU (Blackwell); serve the original with "
            "--quantization fp8, or what qvl quantize --scheme fp8 makes of it"
        )


def _while_loading() -> list[str]:
    """vLLM's names of what it does to linear layers as it loads them; its others are for experts' layers."""
    from vllm.config.quantization import ONLINE_QUANT_SHORTHAND_NAMES, resolve_quantization_config

    return [name for name in ONLINE_QUANT_SHORTHAND_NAMES if resolve_quantization_config(name, {}).linear]


def _multiplies_fp8() -> bool:
    """Not so before Ada and Hopper, where vLLM unpacks FP8 weights of one scale a matrix, and no others."""
    from vllm.platforms import current_platform

    return bool(not current_platform.is_cuda() or current_platform.has_device_capability(89))


def _lacks_int8() -> bool:
    """vLLM takes its CUTLASS kernel there all the same, which ends the engine at its first step."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cuda() and current_platform.has_device_capability(100))
