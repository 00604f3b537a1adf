"""Operations on rows of floats, the search for numbers that are not finite, and bounds of the best, against NumPy."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from muvera.kernels.jit import kernel
from muvera.kernels.norms import first_beyond
from muvera.kernels.row_operations import (
    HAS_HALVES,
    half_at,
    make_halves_to_floats,
    widen_halves,
)
from muvera.kernels.tile import LANES

Array = NDArray[Any]

# Intrinsics are called from compiled code only: one wrapper each.


@pytest.mark.compiled("it compiles an intrinsic")
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


@kernel
def _widen(halves: Array, start: int, stop: int, out: Array) -> None:
    widen_halves(halves, start, stop, out, 0)


@pytest.mark.parametrize("stop", [5, 20, 21, 40])
def test_halves_are_widened_from_anywhere(stop: int) -> None:
    halves = np.arange(14_000, dtype=np.uint16)
    out = np.full(stop - 5 + LANES, 7, np.float32)
    _widen(halves, 5, stop, out)
    np.testing.assert_array_equal(out[: stop - 5], halves[5:stop].view(np.float16))


@kernel
def _half_at(pairs: Any, position: int) -> float:
    return half_at(pairs, position)  # type: ignore[no-any-return]


def test_a_half_is_read_from_any_two_bytes() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    values = every[np.isfinite(every)][::7]
    for shift in (0, 1):
        pairs = np.concatenate([np.zeros(shift, np.uint8), values.astype("<f2").view(np.uint8)])
        found = np.array([_half_at(pairs, shift + 2 * i) for i in range(len(values))])
        np.testing.assert_array_equal(found, values.astype(np.float64))


def test_the_first_number_beyond_a_limit() -> None:
    values = np.full(5000, -99.5, np.float32)
    mask, limit = np.uint32(0x7FFFFFFF), np.float32(100).view(np.uint32)
    assert first_beyond(values.view(np.uint32), mask, limit) == -1
    assert first_beyond(values[:0].view(np.uint32), mask, limit) == -1
    for where, value in ((4999, np.nan), (4096, np.inf), (4095, -np.inf), (9, 100), (4, -100), (0, np.nan)):
        values[where] = value
        assert first_beyond(values.view(np.uint32), mask, limit) == where
