"""Widening of float16 on every processor, and the search for numbers that are not finite, against NumPy."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from muvera.kernels.jit import kernel
from muvera.kernels.rows import HAS_HALVES, first_beyond, make_halves_to_floats
from muvera.kernels.tile import LANES

Array = NDArray[Any]


@pytest.mark.parametrize("native", sorted({HAS_HALVES, False}))
def test_halves_are_widened_by_every_processor(native: bool) -> None:
    """Every bit pattern of float16, subnormals and infinities too."""
    widen = make_halves_to_floats(native)

    @kernel
    def call(halves: Array, out: Array) -> None:
        for i in range(0, 65536, LANES):
            widen(halves, i, out, i)

    halves, out = np.arange(65536, dtype=np.uint16), np.empty(65536, np.float32)
    call(halves, out)
    with np.errstate(invalid="ignore"):  # signalling NaNs, on arm64
        expected = halves.view(np.float16).astype(np.float32)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(out.view(np.uint32)[known], expected.view(np.uint32)[known])
    assert np.isnan(out[~known]).all()


def test_the_first_number_beyond_a_limit() -> None:
    values = np.full(5000, -99.5, np.float32)
    mask, limit = np.uint32(0x7FFFFFFF), np.float32(100).view(np.uint32)
    assert first_beyond(values.view(np.uint32), mask, limit) == -1
    assert first_beyond(values[:0].view(np.uint32), mask, limit) == -1
    for where, value in ((4999, np.nan), (4096, np.inf), (4095, -np.inf), (9, 100), (4, -100), (0, np.nan)):
        values[where] = value
        assert first_beyond(values.view(np.uint32), mask, limit) == where
