"""Maps in bytes: near the float map, and the same whatever stands beside a row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera.encoders.matmul import Int8Matrix, quantize_columns


@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_errors_are_within_half_a_unit_of_map_and_row(length: int, width: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = (rng.normal(size=(length, width)) * 10.0 ** rng.integers(-3, 4, width)).astype(np.float32)
    block = rng.normal(size=(count, length)).astype(np.float32)
    out = np.empty((count, width), np.float32)
    Int8Matrix(matrix).multiply(block, out)
    units = abs(matrix).max(axis=0) / 127
    row_units = abs(block).max(axis=1, keepdims=True) / 32767
    sizes = abs(block).sum(axis=1, keepdims=True)
    bound = sizes * units / 2 + row_units / 2 * abs(matrix).sum(axis=0) * 1.01
    error = abs(out - block.astype(np.float64) @ matrix)
    assert (error <= 1.001 * bound + 1e-6 * sizes * abs(matrix).max(axis=0)).all()


@pytest.mark.parametrize("width", [16, 37, 64, 140])
def test_a_row_is_the_same_alone_and_in_a_batch(width: int) -> None:
    rng = np.random.default_rng(0)
    matrix, block = (rng.normal(size=shape).astype(np.float32) for shape in ((130, width), (21, 130)))
    held = Int8Matrix(matrix)
    together, alone = np.empty((21, width), np.float32), np.empty((1, width), np.float32)
    held.multiply(block, together)
    for i in range(21):
        held.multiply(block[i : i + 1], alone)
        assert alone.tobytes() == together[i : i + 1].tobytes()
    held.multiply(2 * block, scaled := np.empty_like(together))
    np.testing.assert_array_equal(scaled, 2 * together)


@pytest.mark.parametrize("matrix", [np.zeros((5, 3)), np.full((5, 3), 1e-30), np.eye(5, 3) * 1e30])
def test_extremes(matrix: np.ndarray) -> None:
    rounded, units = quantize_columns(matrix.astype(np.float32))
    np.testing.assert_allclose(rounded * units, matrix, rtol=0.01)
    out = np.empty((2, 3), np.float32)
    Int8Matrix(matrix.astype(np.float32)).multiply(np.array([np.zeros(5), np.ones(5)], np.float32), out)
    assert not out[0].any()
    np.testing.assert_allclose(out[1], matrix.sum(axis=0), rtol=0.01)
