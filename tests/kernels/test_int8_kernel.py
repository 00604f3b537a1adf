"""Products of whole numbers: exact, up to the largest numbers in the longest vectors."""

import numpy as np
import pytest

from muvera.kernels.int8 import MAX_QUERY_ENTRY, MAX_VECTOR_ENTRY, integer_products


@pytest.mark.parametrize("width", [1, 31, 100])
def test_products_are_exact(width: int) -> None:
    rng = np.random.default_rng(width)
    codes = rng.integers(-MAX_VECTOR_ENTRY, MAX_VECTOR_ENTRY + 1, (6, width)).astype(np.int8)
    queries = rng.integers(-MAX_QUERY_ENTRY, MAX_QUERY_ENTRY + 1, (3, width)).astype(np.int16)
    rows = np.array([4, 0, 4, 5])
    out = np.empty((4, 3), np.int64)
    integer_products(codes, rows, queries, out)
    np.testing.assert_array_equal(out, codes[rows].astype(np.int64) @ queries.T.astype(np.int64))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_products_do_not_overflow(sign: int) -> None:
    width = 20_000
    codes = np.full((1, width), sign * MAX_VECTOR_ENTRY, np.int8)
    queries = np.full((1, width), MAX_QUERY_ENTRY, np.int16)
    out = np.empty((1, 1), np.int64)
    integer_products(codes, np.zeros(1, np.int64), queries, out)
    assert out[0, 0] == sign * width * MAX_VECTOR_ENTRY * MAX_QUERY_ENTRY
