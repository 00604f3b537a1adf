"""Laws of the row kernels: products, norms, sketches and checks.

They hold for any batch, dtype and number of threads.
"""

from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import MultiVectors, chamfer_matrix
from muvera.data.validation import running_total
from muvera.kernels.chamfer import score_documents, score_pairs
from muvera.kernels.rows import (
    add_count_sketch,
    add_product,
    first_beyond,
    measure_rows,
    normalize_rows,
    pack_map,
)
from muvera.kernels.tile import LANES, pack_columns


def normals(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(some.seeds, st.integers(0, 40), some.dimensions)
def test_packed_columns_are_the_rows_and_zeros(seed: int, count: int, depth: int) -> None:
    """Packing is a permutation plus zeros up to whole panels."""
    matrix = normals(seed, count, depth)
    packed = pack_columns(matrix)
    back = packed.transpose(0, 2, 1).reshape(-1, depth)
    assert packed.shape == (-(-count // LANES), depth, LANES)
    np.testing.assert_array_equal(back[:count], matrix)
    assert not back[count:].any()


@pytest.mark.parametrize("length", [1, 16, 255, 256, 257, 600])
@settings(max_examples=6)
@given(some.seeds, st.integers(1, 20), st.integers(1, 40))
def test_map_products_add_to_the_output_with_the_same_bits_for_any_batch(
    length: int, seed: int, count: int, columns: int
) -> None:
    """out + block @ M in float64 up to rounding of `length` products.

    Rows do not affect each other.
    """
    block, matrix = normals(seed, count, length), normals(seed + 1, length, columns)
    start = normals(seed + 2, count, columns)
    out, alone, packed = start.copy(), start[-1:].copy(), pack_map(matrix)
    add_product(block, packed, out)
    lengths = np.outer(np.linalg.norm(block, axis=1), np.linalg.norm(matrix, axis=0))
    exact = start + block.astype(np.float64) @ matrix
    assert (np.abs(out - exact) <= 3e-6 * (1 + lengths)).all()
    add_product(block[-1:], packed, alone)
    np.testing.assert_array_equal(alone[0], out[-1])


@given(some.seeds, st.integers(0, 6), st.integers(1, 50), st.integers(1, 9))
def test_a_count_sketch_adds_each_signed_column_to_its_target(
    seed: int, count: int, width: int, size: int
) -> None:
    """Linearity and definition: whole numbers make float32 sums exact."""
    rng = np.random.default_rng(seed)
    block = rng.integers(-9, 10, (count, width)).astype(np.float32)
    targets, signs = rng.integers(0, size, width), rng.choice([-1, 1], width).astype(np.float32)
    out = np.ones((count, size), np.float32)
    add_count_sketch(block, targets, signs, out)
    expected = np.ones((size, count))
    np.add.at(expected, targets, (signs * block).T)
    np.testing.assert_array_equal(out, expected.T)


def with_zeros(seed: int, count: int, dimension: int) -> Any:
    rows = normals(seed, count, dimension)
    rows[np.random.default_rng(seed).random(count) < 0.3] = -0.0
    return rows


@given(some.seeds, st.integers(0, 12), some.dimensions, st.integers(-30, 30))
def test_unit_rows_have_length_one_and_the_same_direction(
    seed: int, count: int, dimension: int, exponent: int
) -> None:
    """Normalization is invariant to the scale, to 2 units of float32.

    Zero rows stay, and the first is named.
    """
    rows = with_zeros(seed, count, dimension)
    zero = np.flatnonzero(~rows.any(axis=1))
    out = rows * np.float32(2.0**exponent)
    assert normalize_rows(out) == (zero[0] if len(zero) else -1)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(out, rows / np.where(lengths == 0, 1, lengths), rtol=2.5e-7, atol=1e-44)


@given(some.seeds, st.integers(0, 12), some.dimensions, st.data())
def test_measures_of_parts_are_those_of_the_whole(
    seed: int, count: int, dimension: int, data: st.DataObject
) -> None:
    """Batches: running totals have the same bits for any split.

    They are NumPy's up to rounding.
    """
    rows = with_zeros(seed, count, dimension)
    whole, parts = (np.array([0, 0, np.inf, 0, 0, 0], np.float64) for _ in range(2))
    measure_rows(rows, whole)
    cut = data.draw(st.integers(0, count))
    measure_rows(rows[:cut], parts)
    measure_rows(rows[cut:], parts)
    np.testing.assert_array_equal(parts, whole)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    own = lengths[lengths > 0]
    expected = [len(own), own.sum(), own.min(initial=np.inf), own.max(initial=0)]
    expected += [np.abs(own - 1).max(initial=0), count - len(own)]
    np.testing.assert_allclose(whole, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@given(some.seeds, st.sampled_from([0, 1, 4095, 4096, 4097, 9000]), st.integers(0, 3), st.data())
def test_the_first_number_beyond_a_limit_is_found_for_any_sign(
    dtype: Any, seed: int, count: int, wrong: int, data: st.DataObject
) -> None:
    """Definition: the smallest position whose size is at least the limit.

    NaN and infinities are beyond it.
    """
    values = np.random.default_rng(seed).uniform(-8, 8, count).astype(dtype)
    values[np.abs(values) >= 8] = 0  # rounded up
    for _ in range(wrong if count else 0):
        bad = data.draw(st.sampled_from([8.0, -8.0, 9.5, -np.inf, np.inf, np.nan, -np.nan]))
        values[data.draw(st.integers(0, count - 1))] = bad
    unsigned = np.uint32 if dtype is np.float32 else np.uint16
    mask, limit = unsigned(np.iinfo(unsigned).max >> 1), np.array(8, dtype).view(unsigned)
    found = np.flatnonzero(~(np.abs(values.astype(np.float64)) < 8))
    assert first_beyond(values.view(unsigned), mask, limit[()]) == (found[0] if len(found) else -1)


@settings(max_examples=25)
@given(some.seeds, st.lists(st.integers(0, 20), min_size=1, max_size=6), some.dimensions, some.dtypes)
def test_scores_of_pairs_have_the_bits_of_the_matrix(
    seed: int, lengths: list[int], dimension: int, dtype: Any
) -> None:
    """Both kernels compute one function.

    Documents may repeat, and -inf means no tokens.
    """
    rng = np.random.default_rng(seed)
    tokens = normals(seed, sum(lengths), dimension).astype(dtype)
    documents = MultiVectors.from_flat(tokens, lengths)
    queries = [normals(seed + i, int(rng.integers(1, 4 * LANES)), dimension) for i in range(3)]
    panels = [pack_columns(query) for query in queries]
    packed, firsts = np.concatenate(panels).reshape(-1), running_total([len(each) for each in panels])
    none: Any = np.empty((0, dimension), np.float32 if dtype is np.float16 else np.uint16)
    arrays = (none, tokens.view(np.uint16)) if dtype is np.float16 else (tokens, none)
    at = np.sort(rng.integers(0, len(lengths), 8))
    owners, counts = rng.integers(0, 3, 8), np.array([len(query) for query in queries])
    out = np.empty(8, np.float32)
    score_pairs(*arrays, documents.offsets, at, packed, firsts, owners, counts, out)
    matrix = chamfer_matrix(queries, documents, threads=1)
    np.testing.assert_array_equal(out, matrix[owners, at])
    for q, query in enumerate(queries):
        every, ends = np.empty((8, 1), np.float32), np.array([0, len(query)])
        score_documents(*arrays, documents.offsets, at, pack_columns(query).reshape(-1), ends, every)
        np.testing.assert_array_equal(every[:, 0], matrix[q, at])
