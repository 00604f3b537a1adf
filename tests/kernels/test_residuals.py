"""Decoded residuals of PLAID: exact sums, and bits in any batch.

Threads and dtypes do not change bits, either.
"""

from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given
from hypothesis import strategies as st

from muvera.convert.readers import colbert
from muvera.convert.readers.colbert import Codec
from muvera.kernels.token_codes import byte_table, decode_residuals
from muvera.utils import parallel

BITS = pytest.mark.parametrize("nbits", [1, 2, 4, 8])


def index_of(nbits: int, count: int, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Return centroids, weights, and the codes and residuals of `count` tokens."""
    rng = np.random.default_rng([nbits, seed])
    centroids = rng.normal(size=(50, 16)).astype(np.float32)
    weights = rng.normal(size=2**nbits).astype(np.float32)
    return centroids, weights, rng.integers(0, 50, count), rng.integers(0, 256, (count, 2 * nbits), np.uint8)


@BITS
def test_without_normalizing_a_vector_is_centroid_plus_weights(nbits: int) -> None:
    """One rounding of float32; the first bit of a bucket is the least significant."""
    centroids, weights, codes, packed = index_of(nbits, 9)
    out = np.full((9, 16), np.nan, np.float32)
    decode_residuals(codes, packed, centroids, byte_table(weights, nbits), False, out)
    bits = np.unpackbits(packed, axis=1).reshape(9, 16, nbits).astype(int)
    buckets = (bits << np.arange(nbits)).sum(axis=2)
    np.testing.assert_array_equal(out, centroids[codes] + weights[buckets])


@BITS
def test_a_vector_of_zeros_stays_zero(nbits: int) -> None:
    none, table = np.zeros((1, 8), np.float32), byte_table(np.zeros(2**nbits), nbits)
    out = np.ones((1, 8), np.float32)
    decode_residuals(np.zeros(1, np.int32), np.zeros((1, nbits), np.uint8), none, table, True, out)
    assert out.tobytes() == none.tobytes()


@BITS
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_tasks_do_not_change_bits(
    nbits: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    centroids, weights, codes, packed = index_of(nbits, 1000)
    whole = Codec(centroids, weights, nbits).decode(codes, packed)
    monkeypatch.setattr(colbert, "_TOKENS_PER_TASK", 64)
    monkeypatch.setattr(parallel, "thread_count", lambda _: threads)
    assert Codec(centroids, weights, nbits).decode(codes, packed).tobytes() == whole.tobytes()


@BITS
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint32, np.int64])
def test_dtypes_of_codes_do_not_change_bits(nbits: int, dtype: Any) -> None:
    centroids, weights, codes, packed = index_of(nbits, 40)
    whole = Codec(centroids, weights, nbits).decode(codes, packed)
    other = Codec(centroids.astype(np.float64), weights.astype(np.float64), nbits)
    assert other.decode(codes.astype(dtype), packed).tobytes() == whole.tobytes()


@BITS
@given(some.seeds, st.integers(1, 30), st.data())
def test_rows_of_a_batch_have_the_bits_of_the_whole(
    nbits: int, seed: int, count: int, data: st.DataObject
) -> None:
    centroids, weights, codes, packed = index_of(nbits, count, seed)
    codec = Codec(centroids, weights, nbits)
    whole = codec.decode(codes, packed)
    start, stop = sorted(data.draw(st.tuples(st.integers(0, count), st.integers(0, count))))
    assert codec.decode(codes[start:stop], packed[start:stop]).tobytes() == whole[start:stop].tobytes()
    chosen = np.random.default_rng(seed).integers(0, count, 5)
    rows = codec.rows(count, codes, packed)
    assert np.asarray(rows[chosen]).tobytes() == whole[chosen].tobytes()
