"""Compiles the kernels for an H100 on a machine that has none. Called in a worker (see `worker.py`)."""

from __future__ import annotations

import importlib
from typing import Any

from tests.kernels.worker import ROOT

INTS = {"stride", "width"}
"""Integers that are multiples of 16 in a real model, which triton then compiles for."""


def ptx(op: str, types: dict[str, str], constants: dict[str, Any], warps: int) -> str:
    """PTX of `kernels/<op>.py`'s kernel for sm_90, assembled by ptxas as a check."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    assert (ROOT / "kernels" / f"{op}.py").exists()
    kernel = importlib.import_module(f"qvl.kernels.{op}")._kernel
    aligned = [["tt.divisibility", 16]]
    attributes = {
        (index,): aligned
        for index, name in enumerate(kernel.arg_names)
        if types.get(name, "").startswith("*") or name in INTS
    }
    signature = types | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature, constants, attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    text: str = compiled.asm["ptx"]
    return text
