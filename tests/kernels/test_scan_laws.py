"""Laws of the scan's kernels: nearest centroids and tables of products.

Any division into calls gives the same.
"""

from typing import Any

import numpy as np
import strategies as some
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera.kernels import scan

PAIRS = 2 * scan.STEP


def normals(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def tables_of(query: Any, centroids: Any) -> Any:
    tables = np.empty(len(centroids) * 16, np.uint8)
    scan.make_tables(query, centroids, np.empty((len(centroids), 16), np.float32), tables)
    return tables.reshape(-1, 16)


def decoded(codes: Any, first: int, count: int) -> Any:
    """Return the centroid numbers of rows, (count, PAIRS)."""
    stored = codes.transpose(0, 2, 1).reshape(-1, PAIRS // 2)[first : first + count]
    return np.stack([stored & 15, stored >> 4], axis=2).reshape(count, PAIRS)


@settings(max_examples=25)
@given(some.seeds, st.integers(1, 150), st.integers(0, 100), st.data())
def test_codes_name_the_nearest_centroid_for_any_division(
    seed: int, count: int, first: int, data: st.DataObject
) -> None:
    """Definition by NumPy, up to ties of float32 distances.

    Other rows of a block stay as they are.
    """
    vectors, centroids = normals(seed, count, 2 * PAIRS), normals(seed + 1, PAIRS, 2, 16)
    blocks = -(-(first + count) // scan.BLOCK)
    codes, parts = (np.zeros((blocks, PAIRS // 2, scan.BLOCK), np.uint8) for _ in range(2))
    scan.encode_rows(vectors, centroids, first, 2, codes.reshape(-1))
    cut = data.draw(st.integers(0, count))
    for start, stop in ((0, cut), (cut, count)):
        scan.encode_rows(vectors[start:stop], centroids, first + start, 2, parts.reshape(-1))
    np.testing.assert_array_equal(codes, parts)
    split = vectors.reshape(count, PAIRS, 2)[:, :, :, None].astype(np.float64)
    distances = np.square(split - centroids).sum(axis=2)
    own = np.take_along_axis(distances, decoded(codes, first, count)[:, :, None], 2)[:, :, 0]
    assert (own <= distances.min(axis=2) * (1 + 1e-5) + 1e-12).all()
    assert not decoded(codes, 0, first).any()
    assert not decoded(codes, first + count, blocks * scan.BLOCK - first - count).any()


@settings(max_examples=15)
@given(some.seeds, st.integers(16, 80), st.integers(1, 4))
def test_each_round_of_lloyds_algorithm_lowers_the_error(seed: int, count: int, rounds: int) -> None:
    """Descent: another round never raises the squared error.

    The margin is float32 rounding of the centroids.
    """
    sample = normals(seed, count, 2 * PAIRS)
    errors = []
    for number in (0, rounds, rounds + 1):
        centroids = np.empty((PAIRS, 2, 16), np.float32)
        scan.fit_centroids(sample, np.arange(16), number, centroids)
        split = sample.reshape(count, PAIRS, 2)[:, :, :, None].astype(np.float64)
        errors.append(np.square(split - centroids).sum(axis=2).min(axis=2).sum())
    assert errors[2] <= errors[1] * (1 + 1e-6) and errors[1] <= errors[0] * (1 + 1e-6)


@settings(max_examples=15)
@given(some.seeds, st.integers(16, 80))
def test_one_round_of_lloyds_algorithm_takes_means(seed: int, count: int) -> None:
    """Definition: a centroid becomes the mean of the vectors nearest to it.

    Every centroid has a member.
    """
    sample = normals(seed, count, 2 * PAIRS)
    split = sample.reshape(count, PAIRS, 2).astype(np.float64)
    centroids = np.empty((PAIRS, 2, 16), np.float32)
    scan.fit_centroids(sample, np.arange(16), 1, centroids)
    distances = np.square(split[:, :, None] - split[:16].transpose(1, 0, 2)[None]).sum(axis=3)
    nearest = distances.argmin(axis=2)
    for pair in (0, PAIRS - 1):
        for j in range(16):
            own = split[nearest[:, pair] == j, pair]
            np.testing.assert_allclose(centroids[pair, :, j], own.mean(axis=0), atol=1e-6)


@given(some.seeds, st.integers(1, 30), st.sampled_from([1e-6, 1.0, 1e6]))
def test_tables_are_products_above_the_least_in_one_unit(seed: int, steps: int, scale: float) -> None:
    """Half a unit per entry; a step's largest entries fit a byte.

    The largest entries of all steps fit MAX_SUM.
    """
    pairs = steps * scan.STEP
    query, centroids = normals(seed, 2 * pairs) * np.float32(scale), normals(seed + 1, pairs, 2, 16)
    tables = tables_of(query, centroids).astype(np.int64)
    products = np.einsum("pc,pcj->pj", query.reshape(pairs, 2).astype(np.float64), centroids)
    above = products - products.min(axis=1, keepdims=True)
    widest = above.max(axis=1).reshape(-1, scan.STEP).sum(axis=1)
    unit = max(widest.max() / 253, widest.sum() / (scan.MAX_SUM - pairs))
    assert (np.abs(tables * unit - above) <= 0.501 * unit).all()
    most = tables.max(axis=1)
    assert most.sum() <= scan.MAX_SUM and most.reshape(-1, scan.STEP).sum(axis=1).max() <= 255


@settings(max_examples=25)
@given(some.seeds, st.integers(1, 6), st.integers(1, 80), st.sampled_from([1, 63]), st.data())
def test_any_division_into_calls_keeps_the_best_rows(
    seed: int, queries: int, wanted: int, most: int, data: st.DataObject
) -> None:
    """Parts: the kept rows are those of a stable sort of all sums.

    It does not matter where the calls are divided.
    """
    rng, blocks, steps = np.random.default_rng(seed), 4, 2
    codes = rng.integers(0, 256, (blocks, PAIRS // 2, scan.BLOCK), dtype=np.uint8)
    tables = rng.integers(0, most + 1, (queries, PAIRS, 16), dtype=np.uint8)
    numbers = decoded(codes, 0, blocks * scan.BLOCK)
    sums = np.stack([own[np.arange(PAIRS), numbers].sum(axis=1, dtype=int) for own in tables])
    mask = rng.random(blocks * scan.BLOCK) < data.draw(st.sampled_from([0.02, 0.5, 1.0]))
    words = np.packbits(mask, bitorder="little").view(np.uint64)
    room = wanted + scan.BLOCK * data.draw(st.integers(1, 3))
    own_sums, rows = np.empty((queries, room), np.uint16), np.empty((queries, room), np.int64)
    bounds, found = np.zeros(queries, np.uint16), np.zeros(queries, np.int64)
    cut = data.draw(st.integers(0, blocks))
    for start, stop in ((0, cut), (cut, blocks)):
        scan.scan_codes(
            codes.reshape(-1), steps, tables.reshape(-1), words, start, stop, 9, wanted,
            bounds, own_sums, rows, found,
        )  # fmt: skip
    shown = np.flatnonzero(mask)
    for q, count in enumerate(found):
        if count > wanted:
            scan.keep_best(own_sums[q], rows[q], count, wanted)
        best = np.sort(shown[np.argsort(-sums[q, shown], kind="stable")[:wanted]])
        np.testing.assert_array_equal(rows[q, : min(count, wanted)], best + 9)


@given(some.seeds, st.integers(1, 70))
def test_of_equal_centroids_the_first_is_taken(seed: int, count: int) -> None:
    """Ties: with every centroid in two places, no code names the second."""
    vectors, centroids = normals(seed, count, 2 * PAIRS), normals(seed + 1, PAIRS, 2, 16)
    centroids[:, :, 8:] = centroids[:, :, :8]
    codes = np.zeros((-(-count // scan.BLOCK), PAIRS // 2, scan.BLOCK), np.uint8)
    scan.encode_rows(vectors, centroids, 0, 2, codes.reshape(-1))
    assert decoded(codes, 0, count).max() < 8


@given(some.seeds, st.integers(1, 16), st.integers(0, 5))
def test_centroids_of_few_different_vectors_lose_nothing(seed: int, different: int, rounds: int) -> None:
    """Vectors that begin as centroids keep them; centroids without members stay."""
    vectors = normals(seed, different, 2 * PAIRS)
    sample = vectors[np.arange(40) % different]
    centroids = np.empty((PAIRS, 2, 16), np.float32)
    scan.fit_centroids(sample, np.arange(16), rounds, centroids)
    split = vectors.reshape(different, PAIRS, 2).transpose(1, 2, 0)
    np.testing.assert_allclose(centroids, split[:, :, np.arange(16) % different], rtol=1e-6)


@given(some.seeds, st.integers(1, 9))
def test_a_query_of_zeros_has_tables_of_zeros(seed: int, steps: int) -> None:
    pairs = steps * scan.STEP
    assert not tables_of(np.zeros(2 * pairs, np.float32), normals(seed, pairs, 2, 16)).any()
