"""`qvl quantize`. Everything heavy loads in its command."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from qvl.engine.options import ConfigFile, Model, Out


def quantize(
    model: Model,
    /,
    *,
    scheme: Literal["fp8", "int8", "awq"],
    out: Out,
    role: Literal["embedder", "reranker"] | None = None,
    vision: bool = False,
    calibration: Path | None = None,
    config: ConfigFile = None,
) -> int:
    """Write a checkpoint in fewer bits; `qvl serve OUT` needs no option for it.

    `qvl check OUT --against MODEL` compares its answers with the original's.

    Parameters
    ----------
    model
        Checkpoint folder or hub name, not quantised yet.
    scheme
        fp8 and int8: weights and activations in 8 bits; vLLM runs int8 on no Blackwell GPU. awq: weights in
        4, with scales found on examples.
    out
        The folder to make.
    role
        Where the checkpoint does not tell it.
    vision
        The vision tower too (fp8, int8); the token embedding and lm_head always stay.
    calibration
        JSON lines as `qvl embed` (a reranker: `qvl rerank`) takes them, the first 128 of which awq
        uses (default: the demo's drawn pictures and texts).
    """
    del config
    from qvl.engine.quantize.command import quantize

    quantize(model, out, scheme, role=role, vision=vision, calibration=calibration)
    return 0
