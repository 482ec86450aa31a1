"""Vectors and JSON out: from numpy's bytes to the wire, never through Python floats.

| type      | value of a component x of a unit vector with d components               |
|-----------|--------------------------------------------------------------------------|
| `float32` | x                                                                        |
| `float16` | x, rounded to nearest                                                    |
| `int8`    | round(127 · clip(x · s, −1, 1)), with s = max(1, √d / 8)                 |
| `uint8`   | `int8` + 128: 1..255, and 128 stands for 0                               |
| `ubinary` | one bit per component, set where x > 0; first component in the high bit; |
|           | the last byte is filled with zeros when d is no multiple of 8            |
| `binary`  | `ubinary` − 128, as a signed byte                                        |

The scale of `int8` depends on d alone, so vectors of different requests can be compared: x ≈ q / (127 · s).
The cosine of two rows is that of their vectors to about 2e-4; their dot product divided by (127 · s)² is
the cosine to about 1e-3 where d ≥ 1024. A component's typical size is 1/√d; eight times that is clipped.
Asymmetric search works too: the product of a `float32` query with `int8` rows, divided by 127 · s, is the
cosine with less error, and its order needs no dividing (benchmarks/quality has both as rows).

As base64, the bytes of the type, little-endian.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import orjson
import pybase64

from qvl.engine.dialects.vectors import Dtype, Kind, Vector


def convert(vectors: npt.NDArray[np.float32], dtype: Dtype) -> npt.NDArray[Any]:
    """Rows of unit vectors as the given type, contiguous and little-endian."""
    match dtype:
        case "float32":
            return np.ascontiguousarray(vectors, dtype="<f4")
        case "float16":
            return np.ascontiguousarray(vectors, dtype="<f2")
        case "int8":
            return _int8(vectors)
        case "uint8":
            return (_int8(vectors).astype(np.int16) + 128).astype(np.uint8)
        case "ubinary":
            return np.packbits(vectors > 0, axis=1)
        case "binary":
            return (np.packbits(vectors > 0, axis=1).astype(np.int16) - 128).astype(np.int8)


def int8_scale(dimensions: int) -> float:
    """What an `int8` component is divided by to get the vector's own back."""
    return 127.0 * max(1.0, math.sqrt(dimensions) / 8.0)


def _int8(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    scaled = vectors * np.float32(int8_scale(vectors.shape[1]))
    return np.rint(np.clip(scaled, -127, 127)).astype(np.int8)


def encode(vectors: npt.NDArray[np.float32], kind: Kind) -> list[Vector]:
    """One wire value per row: base64, or the row itself, which `dump` writes as a list of numbers."""
    rows = convert(vectors, kind.dtype)
    if kind.base64:
        return [pybase64.b64encode_as_string(row.data) for row in rows]
    return cast("list[Vector]", list(rows))


def encode_apart(vectors: npt.NDArray[np.float32], kind: Kind) -> list[Vector]:
    """`encode` for a thread: rows are JSON already, each made by itself, and the event loop has its turns
    between them. The JSON writer gives none before it is done."""
    rows = encode(vectors, kind)
    return rows if kind.base64 else cast("list[Vector]", [orjson.Fragment(dump(row)) for row in rows])


def dump(payload: object) -> bytes:
    """JSON, with numpy rows written straight from their memory."""
    return orjson.dumps(payload, option=orjson.OPT_SERIALIZE_NUMPY)
