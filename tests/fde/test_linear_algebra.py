"""Products, eigenvectors and 8-bit matrices, against NumPy.

Their bits depend on the matrices alone.
"""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from muvera.fde.linear_algebra import (
    Ridge,
    byte_arguments,
    gram,
    half_byte_arguments,
    half_bytes_to_int8,
    leading_eigenvectors,
    one_blas_thread,
    product,
    quantize_columns,
    quantize_to_half_bytes,
)
from muvera.kernels.byte_product import multiply_by_bytes, multiply_by_half_bytes


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_threads_and_order_in_memory_change_no_bit() -> None:
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(600, 400))[:size].astype(np.float32) for size in (600, 400))
    whole = product(left, right, 1)
    # Some roundings of 2**-24 of sums of 400 products of size one.
    np.testing.assert_allclose(whole, left.astype(np.float64) @ right, atol=6e-4)
    assert product(left, right, 2).tobytes() == whole.tobytes()
    assert product(np.asfortranarray(left), right.T.copy().T, 2).tobytes() == whole.tobytes()
    many = rng.normal(size=(1100, 40)).astype(np.float32)
    square = gram(many, 1)
    assert gram(many, 2).tobytes() == gram(np.asfortranarray(many), 2).tobytes() == square.tobytes()
    np.testing.assert_allclose(square, many @ many.T, atol=1e-4)


def test_the_blas_limit_ends_with_the_last_thread() -> None:
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        with pytest.raises(KeyError), one_blas_thread():
            assert set(blas_threads()) == {1}
            raise KeyError
        assert blas_threads() == before
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        between = blas_threads()
        second.__exit__(None, None, None)
        assert set(between) == {1} and blas_threads() == before


def test_a_blas_that_is_loaded_later_is_limited() -> None:
    code = """
from muvera.fde.linear_algebra import one_blas_thread
with one_blas_thread():
    pass
import scipy.linalg
from threadpoolctl import threadpool_info
with one_blas_thread():
    print(sorted({each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}))
"""
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout == "[1]\n"


def test_eigenvectors() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(300, 300)))[0]
    spectrum = 0.97 ** np.arange(300)
    matrix = (basis * spectrum @ basis.T).astype(np.float32)
    values, vectors = leading_eigenvectors(matrix, 20, np.random.default_rng(1))
    np.testing.assert_allclose(values, spectrum[:20], rtol=1e-4)
    np.testing.assert_allclose(np.abs(np.einsum("ij,ij->j", vectors, basis[:, :20])), 1, atol=1e-2)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(20), atol=1e-5)
    values, vectors = leading_eigenvectors(np.diag([1, 4]).astype(np.float32), 5, np.random.default_rng(0))
    np.testing.assert_allclose(values, [4, 1], rtol=1e-5)
    assert vectors.shape == (2, 2)
    values, _ = leading_eigenvectors(np.zeros((3, 3), np.float32), 2, np.random.default_rng(0))
    assert not values.any()


shapes = st.integers(1, 40)
some_seeds = st.integers(0, 2**32 - 1)


@given(shapes, shapes, shapes, some_seeds)
def test_products_and_grams_are_those_of_numpy(n: int, depth: int, m: int, seed: int) -> None:
    """Sums of at most 40 products of size one; float32."""
    rng = np.random.default_rng(seed)
    left, right = (rng.normal(size=shape).astype(np.float32) for shape in ((n, depth), (depth, m)))
    other = rng.normal(size=(n, depth)).astype(np.float32)
    np.testing.assert_allclose(product(left, right), left.astype(np.float64) @ right, atol=1e-4)
    np.testing.assert_allclose(gram(left), left.astype(np.float64) @ left.T, atol=1e-4)
    mixed = left.astype(np.float64) @ other.T
    np.testing.assert_allclose(gram(left, None, other), mixed + mixed.T, atol=2e-4)


@given(shapes, shapes, st.floats(0.01, 10), some_seeds)
def test_ridges_solve_their_system(n: int, columns: int, ridge: float, seed: int) -> None:
    """(K + amount I) X = T with amount = ridge * trace / n; float32."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, n + 3)).astype(np.float32)
    matrix, targets = rows @ rows.T, rng.normal(size=(n, columns)).astype(np.float32)
    regression = Ridge(matrix.copy(), ridge)
    assert regression.amount == pytest.approx(ridge * np.trace(matrix) / n, rel=1e-5)
    solution = regression.solution(targets).astype(np.float64)
    shifted = matrix.astype(np.float64) + np.eye(n) * regression.amount
    np.testing.assert_allclose(shifted @ solution, targets, atol=2e-3 / min(1, ridge))


@given(st.integers(1, 30), st.integers(1, 12), some_seeds)
def test_leading_eigenvectors_hold_the_most_of_a_matrix(size: int, count: int, seed: int) -> None:
    """Orthonormal, values in descending order, and equal to LAPACK's.

    The margin is of float32 and four rounds.
    """
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    matrix = (basis * 0.8 ** np.arange(size) @ basis.T).astype(np.float32)
    values, vectors = leading_eigenvectors(matrix, count, np.random.default_rng(seed))
    assert len(values) == min(count, size) and vectors.shape == (size, len(values))
    np.testing.assert_allclose(values, 0.8 ** np.arange(len(values)), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(values)), atol=1e-4)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-3)


def columns_of_many_sizes(rng: np.random.Generator, length: int, width: int) -> NDArray[np.float32]:
    """Return a matrix whose columns differ by up to 60 orders of magnitude.

    Every fifth column is zero.
    """
    matrix = (rng.normal(size=(length, width)) * 10.0 ** rng.integers(-30, 31, width)).astype(np.float32)
    matrix[:, ::5] = 0
    return matrix


@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_int8_errors_are_half_a_unit_of_matrix_and_row(
    length: int, width: int, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    matrix = columns_of_many_sizes(rng, length, width)
    block = rng.normal(size=(count, length)).astype(np.float32)
    out = np.empty((count, width), np.float32)
    multiply_by_bytes(block, *byte_arguments(*quantize_columns(matrix)), out)
    units = abs(matrix).max(axis=0) / 127
    row_units = abs(block).max(axis=1, keepdims=True) / 32767
    sizes = abs(block).sum(axis=1, keepdims=True)
    bound = sizes * units / 2 + row_units / 2 * abs(matrix).sum(axis=0) * 1.01
    error = abs(out - block.astype(np.float64) @ matrix)
    assert (error <= 1.001 * bound + 1e-6 * sizes * abs(matrix).max(axis=0)).all()


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_half_bytes_have_the_products_of_their_entries(
    length: int, width: int, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    matrix = columns_of_many_sizes(rng, length, width)
    halves, units = quantize_to_half_bytes(matrix)
    entries = half_bytes_to_int8(halves, length)
    assert halves.shape == (-(-length // 2), width) and not units[::5].any()
    error = np.linalg.norm(entries * units.astype(np.float64) - matrix, axis=0)
    assert (error <= 0.2 * np.linalg.norm(matrix.astype(np.float64), axis=0)).all()
    block = rng.normal(size=(count, length)).astype(np.float32)
    whole, split = np.empty((2, count, width), np.float32)
    multiply_by_bytes(block, *byte_arguments(entries, units), whole)
    multiply_by_half_bytes(block, *half_byte_arguments(halves, units, length), split)
    np.testing.assert_array_equal(split, whole)
