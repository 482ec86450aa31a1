"""The schemes by name, and which matrices they are for."""

from __future__ import annotations

import re
from typing import Any, Literal, TypeAlias

import torch

Scheme: TypeAlias = Literal["fp8", "int8", "awq"]
PRESETS: dict[Scheme, str] = {"fp8": "FP8_DYNAMIC", "int8": "W8A8", "awq": "W4A16_ASYM"}
"""compressed-tensors' names: the first two quantise activations too, a scale for each token."""
FORMATS: dict[Scheme, str] = {"fp8": "float-quantized", "int8": "int-quantized", "awq": "pack-quantized"}

_LINEAR = re.compile(r"(_proj|\.qkv|attn\.proj|linear_fc[12])\.weight$")
_VISION = re.compile(r"(^|\.)visual\.")
# Patterns, since vLLM puts names of its own in place of the checkpoint's before it reads them.
_IGNORED = ["re:.*lm_head.*", "re:.*embed_tokens.*"]
_IGNORED_VISION = "re:.*visual.*"


def is_quantised(name: str, weight: torch.Tensor, *, vision: bool) -> bool:
    """The matrices of the text layers, and with `vision` those of the vision tower and its mergers.

    Never the token embedding or lm_head: the reranker's yes/no head is cut from them.
    """
    return bool(weight.ndim == 2 and _LINEAR.search(name) and (vision or not _VISION.search(name)))


def scheme_of(name: Scheme) -> Any:
    from compressed_tensors.quantization import preset_name_to_scheme

    return preset_name_to_scheme(PRESETS[name], ["Linear"])


def config_of(name: Scheme, *, vision: bool) -> dict[str, Any]:
    """What goes into config.json as `quantization_config`."""
    from compressed_tensors.quantization import QuantizationConfig

    config = QuantizationConfig(
        config_groups={"group_0": scheme_of(name)},
        format=FORMATS[name],
        ignore=_IGNORED + ([] if vision else [_IGNORED_VISION]),
        quantization_status="compressed",
    )
    made: dict[str, Any] = config.model_dump(mode="json")
    return made


def parameters(weight: torch.Tensor, scheme: Any) -> dict[str, torch.Tensor]:
    """Scale and zero point of each row (out, 1), or of each group of a row (out, groups)."""
    from compressed_tensors.quantization.utils import calculate_qparams

    group = scheme.weights.group_size
    parts = weight.reshape(len(weight), -1, group or weight.shape[1])
    scale, zero = calculate_qparams(parts.amin(2), parts.amax(2), scheme.weights)
    return {"weight_scale": scale, "weight_zero_point": zero}


def compressed(weight: torch.Tensor, name: Scheme) -> dict[str, torch.Tensor]:
    """The tensors that stand for a matrix (out, in) in the file, by the last part of their names."""
    from compressed_tensors.compressors import BaseCompressor

    scheme = scheme_of(name)
    state = {"weight": weight, **parameters(weight, scheme)}
    made: dict[str, torch.Tensor] = BaseCompressor.get_value_from_registry(FORMATS[name]).compress(
        state, scheme
    )
    return made


def rounded(weight: torch.Tensor, name: Scheme) -> torch.Tensor:
    """A matrix with the values that its quantised self stands for."""
    from compressed_tensors.quantization import fake_quantize

    scheme = scheme_of(name)
    made = parameters(weight, scheme)
    near: torch.Tensor = fake_quantize(
        weight, made["weight_scale"], made["weight_zero_point"], scheme.weights
    )
    return near
