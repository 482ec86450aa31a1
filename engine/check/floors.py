"""How far an answer may be from the reference's in float32 before it counts as another one."""

from __future__ import annotations

COSINE = {"float32": 0.999999, "float16": 0.99955, "bfloat16": 0.9982}
"""Of two vectors, at least, by what the engine computes in."""
SCORE = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.03}
"""Of two scores, at most."""
QUANTISED_COSINE, QUANTISED_SCORE = 0.98, 0.1
"""Likewise, of weights in fewer bits, by whatever scheme."""
