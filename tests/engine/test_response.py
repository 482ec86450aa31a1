"""Number types and their bytes."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvl.engine.dialects.vectors import Kind
from qvl.engine.response import convert, dump, encode, encode_apart, int8_scale


def unit(rows: int, width: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@given(width=st.integers(1, 300), seed=st.integers(0, 99))
def test_int8_is_within_half_a_step(width: int, seed: int) -> None:
    rows = unit(3, width, seed)
    back = convert(rows, "int8") / int8_scale(width)
    inside = np.abs(rows) * int8_scale(width) <= 127
    assert np.abs(back - rows)[inside].max(initial=0) <= 0.5001 / int8_scale(width)
    np.testing.assert_array_equal(convert(rows, "uint8").astype(int) - 128, convert(rows, "int8"))


@pytest.mark.parametrize(("width", "error"), [(64, 1e-2), (2048, 2e-3), (4096, 2e-3)])
def test_int8_keeps_cosines_across_requests(width: int, error: float) -> None:
    one, two = unit(50, width, 1), unit(50, width, 2)
    two = (one + 0.5 * two) / np.linalg.norm(one + 0.5 * two, axis=1, keepdims=True)
    exact = (one * two).sum(1)
    quick = (convert(one, "int8").astype(float) * convert(two, "int8")).sum(1) / int8_scale(width) ** 2
    np.testing.assert_allclose(quick, exact, atol=error)


def test_int8_clips_what_is_far_out() -> None:
    row = np.zeros((1, 4096), np.float32)
    row[0, 0] = -1
    assert convert(row, "int8")[0, 0] == -127
    assert convert(row, "uint8").min() == 1


@given(width=st.integers(1, 40), seed=st.integers(0, 99))
def test_bits(width: int, seed: int) -> None:
    rows = unit(2, width, seed)
    packed = convert(rows, "ubinary")
    np.testing.assert_array_equal(np.unpackbits(packed, axis=1)[:, :width], rows > 0)
    assert packed.shape == (2, -(-width // 8))
    np.testing.assert_array_equal(convert(rows, "binary").astype(int) + 128, packed)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "binary", "ubinary"])
def test_lists_and_base64_say_the_same(dtype: str) -> None:
    rows = unit(3, 64)[:, :24]  # a cut is not contiguous
    listed = json.loads(dump(encode(rows, Kind(dtype))))  # type: ignore[arg-type]
    assert dump(encode_apart(rows, Kind(dtype))) == dump(encode(rows, Kind(dtype)))  # type: ignore[arg-type]
    coded = encode(rows, Kind(dtype, True))  # type: ignore[arg-type]
    assert encode_apart(rows, Kind(dtype, True)) == coded  # type: ignore[arg-type]
    numbers = {"float32": "<f4", "float16": "<f2", "binary": "i1", "ubinary": "u1"}.get(dtype, dtype)
    for some, other in zip(listed, coded, strict=True):
        np.testing.assert_array_equal(
            np.array(some, numbers), np.frombuffer(base64.b64decode(str(other)), numbers)
        )
