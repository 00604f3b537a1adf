"""The libstdc++ replay against draws of a C++ program, committed as a golden file."""

import numpy as np
import pytest
from builders.paths import GOLDEN

from muvera.encoders.fde.draws import libstdcxx

FILE = GOLDEN / "libstdcxx.npz"


def ulps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance in units in the last place, for floats of the same sign."""
    return np.abs(a.view(np.int32).astype(np.int64) - b.view(np.int32))


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 - 1])
def test_normals_are_those_of_libstdcxx(seed: int) -> None:
    with np.load(FILE) as golden:
        expected = golden[f"normals_{seed}"]
    drawn = libstdcxx.standard_normals(seed, len(expected))
    assert drawn.dtype == np.float32
    # glibc's logf is off by one unit for some arguments, which the square root and the product carry on.
    assert ulps(drawn, expected).max() <= 3
    assert np.mean(drawn == expected) > 0.98


@pytest.mark.parametrize(
    ("seed", "size"), [(1, 1), (1, 16), (2, 12), (3, 10_240), (4, 1_000_003), (5, 1_600_000_001)]
)
def test_sketch_is_that_of_libstdcxx(seed: int, size: int) -> None:
    with np.load(FILE) as golden:
        expected = golden[f"sketch_{seed}_{size}"]
    targets, signs = libstdcxx.count_sketch(seed, len(expected), size)
    assert targets.dtype == np.int64 and signs.dtype == np.float32
    np.testing.assert_array_equal(targets, expected[:, 0])
    np.testing.assert_array_equal(signs, expected[:, 1])


def test_the_integers_are_not_those_of_the_old_division() -> None:
    """The golden sizes tell GCC 11's algorithm from GCC 10's, which agree on small sizes."""
    seed, size = 4, 1_000_003
    targets, _ = libstdcxx.count_sketch(seed, 200, size)
    divided = libstdcxx.words(libstdcxx.mt19937(seed), 600)[0::3] // ((2**32 - 1) // size)
    assert np.mean(targets != divided) > 0.9


@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
def test_a_shorter_draw_is_a_prefix(count: int) -> None:
    np.testing.assert_array_equal(
        libstdcxx.standard_normals(9, count), libstdcxx.standard_normals(9, 1001)[:count]
    )


def test_seeds_wrap_as_in_cpp() -> None:
    np.testing.assert_array_equal(
        libstdcxx.standard_normals(-1, 10), libstdcxx.standard_normals(2**32 - 1, 10)
    )
