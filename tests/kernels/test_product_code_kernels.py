"""Product codes against NumPy in float64: training, nearest centroids, tables and scans."""

import numpy as np
import pytest

from muvera.kernels.product_codes import CENTROIDS, PANELS, encode, pack_centroids, scan, tables, train
from muvera.kernels.tile import LANES


def trained(sample: np.ndarray, width: int, rounds: int, order: np.ndarray | None = None) -> np.ndarray:
    groups = sample.shape[1] // width
    packed = np.zeros(groups * PANELS * (width + 1) * LANES, np.float32)
    train(sample, np.arange(len(sample)) if order is None else order, 0, groups, width, rounds, packed)
    return packed


def centroids_of(packed: np.ndarray, groups: int, width: int) -> np.ndarray:
    """float32 (groups, CENTROIDS, width), read from the layout's definition."""
    found = np.empty((groups, CENTROIDS, width), np.float32)
    shaped = packed.reshape(groups, PANELS, width + 1, LANES)
    for c in range(CENTROIDS):
        found[:, c] = shaped[:, c // LANES, :width, c % LANES]
    return found


def encoded(vectors: np.ndarray, packed: np.ndarray, width: int) -> np.ndarray:
    codes = np.empty((len(vectors), vectors.shape[1] // width), np.uint8)
    encode(vectors, 0, len(vectors), width, packed, codes)
    return codes


def squared_error(vectors: np.ndarray, packed: np.ndarray, width: int) -> float:
    groups = vectors.shape[1] // width
    codes = encoded(vectors, packed, width)
    decoded = centroids_of(packed, groups, width)[np.arange(groups), codes].reshape(vectors.shape)
    return float(((vectors - decoded) ** 2).sum())


def test_packing_writes_centroids_and_half_their_squares() -> None:
    rng = np.random.default_rng(0)
    centroids = rng.standard_normal((2, CENTROIDS, 3)).astype(np.float32)
    packed = np.zeros(2 * PANELS * 4 * LANES, np.float32)
    pack_centroids(centroids, packed)
    np.testing.assert_array_equal(centroids_of(packed, 2, 3), centroids)
    below = packed.reshape(2, PANELS, 4, LANES)[:, :, 3].reshape(2, CENTROIDS)
    np.testing.assert_allclose(below, -0.5 * (centroids.astype(np.float64) ** 2).sum(2), rtol=1e-6)


@pytest.mark.parametrize("width", [1, 5, 8])
def test_a_code_is_the_nearest_centroid(width: int) -> None:
    rng = np.random.default_rng(width)
    centroids = rng.standard_normal((2, CENTROIDS, width)).astype(np.float32)
    packed = np.zeros(2 * PANELS * (width + 1) * LANES, np.float32)
    pack_centroids(centroids, packed)
    vectors = rng.standard_normal((19, 2 * width)).astype(np.float32)
    codes = encoded(vectors, packed, width)
    for group in range(2):
        points = vectors[:, group * width : (group + 1) * width].astype(np.float64)
        distances = ((points[:, np.newaxis] - centroids[group].astype(np.float64)) ** 2).sum(2)
        chosen = distances[np.arange(19), codes[:, group]]
        assert (chosen <= distances.min(1) + 1e-5).all()


def test_of_equal_centroids_the_first_is_taken_and_zero_is_zero() -> None:
    packed = np.zeros(PANELS * 3 * LANES, np.float32)
    assert encoded(np.zeros((9, 2), np.float32), packed, 2).tolist() == [[0]] * 9


def test_fewer_points_than_centroids_are_their_own() -> None:
    sample = np.random.default_rng(1).standard_normal((40, 8)).astype(np.float32)
    sample[5] = 0
    packed = trained(sample, 4, 5)
    assert squared_error(sample, packed, 4) == 0
    assert (centroids_of(packed, 2, 4)[:, 0] == 0).all()


@pytest.mark.compiled("many points")
def test_rounds_lower_the_error_and_use_every_centroid() -> None:
    sample = np.random.default_rng(2).standard_normal((3000, 8)).astype(np.float32)
    errors = [squared_error(sample, trained(sample, 4, rounds), 4) for rounds in (0, 1, 3, 12)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.8 * errors[0]
    codes = encoded(sample, trained(sample, 4, 12), 4)
    assert all(len(np.unique(codes[:, group])) >= CENTROIDS - 1 for group in range(2))


@pytest.mark.compiled("many points")
def test_centroids_that_lose_all_points_take_those_that_are_worst_off() -> None:
    """All begin as copies of one point: without that one centroid would serve all others."""
    rng = np.random.default_rng(3)
    others = rng.standard_normal((200, 4)).astype(np.float32)
    sample = np.concatenate([np.ones((300, 4), np.float32), others])
    assert squared_error(sample, trained(sample, 4, 4), 4) < 1e-9 * (others**2).sum()


@pytest.mark.compiled("many points")
def test_zero_points_take_no_centroid_but_their_own() -> None:
    rng = np.random.default_rng(4)
    filled = rng.standard_normal((400, 4)).astype(np.float32)
    sample = np.concatenate([filled, np.zeros((4000, 4), np.float32)])
    order = rng.permutation(len(sample))
    alone = order[order < 400]
    np.testing.assert_array_equal(trained(sample, 4, 6, order), trained(sample, 4, 6, alone))


@pytest.mark.parametrize("count", [1, 4, 6])
def test_tables_and_scan_are_the_products_with_the_decoded(count: int) -> None:
    rng = np.random.default_rng(5)
    groups, width = 7, 3
    centroids = rng.standard_normal((groups, CENTROIDS, width)).astype(np.float32)
    packed = np.zeros(groups * PANELS * (width + 1) * LANES, np.float32)
    pack_centroids(centroids, packed)
    query = rng.standard_normal(groups * width).astype(np.float32)
    query[6:12] = 0  # two groups in which the query is zero
    active = np.array([0, 1, 4, 5, 6])
    table = np.full((5, CENTROIDS), np.nan, np.float32)
    tables(query, active, packed, width, table)
    expected = (centroids[active].astype(np.float64) * query.reshape(groups, 1, width)[active]).sum(2)
    np.testing.assert_allclose(table, expected, atol=1e-5)
    codes = rng.integers(0, CENTROIDS, (9, groups)).astype(np.uint8)
    rows = rng.permutation(9)[:count]
    out = np.full(count, np.nan, np.float32)
    scan(codes.reshape(-1), groups, rows, active, table.reshape(-1), out)
    decoded = centroids[np.arange(groups), codes[rows]].reshape(count, -1).astype(np.float64)
    np.testing.assert_allclose(out, decoded @ query, atol=1e-5)
