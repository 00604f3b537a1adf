"""Landmark kernels against NumPy: nearest landmarks, weights, exact bits."""

from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from muvera import MultiVectors
from muvera.data.multivectors import as_kernel_arrays
from muvera.fde.landmark_kernels import (
    ELSEWHERE,
    NEAREST,
    CellMap,
    landmark_queries,
)
from muvera.fde.landmark_kernels import nearest_cells as nearest_cells_of
from muvera.fde.landmark_kernels import project_landmark_queries as project_landmark_queries_of
from muvera.fde.landmarks import LandmarkArrays
from muvera.fde.linear_algebra import quantize_columns
from muvera.fde.tasks import Tokens
from muvera.kernels.byte_tile import WIDE
from muvera.kernels.nearest import (
    CHUNK,
    LEAST,
    ROOM,
    bound_of_maxima,
    key_position,
    key_value,
    select_greatest,
)
from muvera.kernels.tile import LANES

SHARPNESS = 12.0


@numba.njit
def selected(row: Any, bound: Any, keys: Any, kept: Any) -> Any:
    select_greatest(row, 0, row.shape[0], bound, keys, kept)
    values, positions = np.empty(kept.shape[0], np.int64), np.empty(kept.shape[0], np.int64)
    for i in range(kept.shape[0]):
        values[i], positions[i] = key_value(keys[i]), key_position(keys[i])
    return values, positions


@numba.njit
def bound_from(maxima: Any, position: Any, wanted: Any) -> Any:
    return bound_of_maxima(maxima, position, wanted)


@numba.njit
def nearest_cells(tokens: Any, landmarks: Any, rows: Any, numbers: Any, weights: Any) -> None:
    nearest_cells_of(tokens, 0, numbers.shape[0], landmarks, SHARPNESS, rows, numbers, weights)


@numba.njit
def project_landmark_queries(
    tokens: Any, first: Any, last: Any, landmarks: Any, cell_map: Any, out: Any
) -> None:
    project_landmark_queries_of(tokens, first, last, landmarks, SHARPNESS, cell_map, out)


def normals(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def landmarks_of(count: int, dimension: int) -> LandmarkArrays:
    directions = normals(count, dimension, seed=1) + 1
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    center = (directions.mean(axis=0) * np.float32(0.9)).astype(np.float32)
    return LandmarkArrays(center, center, *quantize_columns(np.ascontiguousarray(directions.T)))


def kernel_tokens(texts: list[NDArray[Any]]) -> Tokens:
    joined = MultiVectors.from_arrays(texts)
    return Tokens(*as_kernel_arrays(joined), joined.offsets)


def nearest_of(
    landmarks: LandmarkArrays, text: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the nearest landmarks of a text's tokens, and their cells' weights."""
    kept = min(NEAREST, landmarks.count)
    numbers, weights = np.empty((len(text), kept), np.int64), np.empty((len(text), kept), np.float32)
    rows = np.empty((landmarks.count, 0), np.int8)
    nearest_cells(kernel_tokens([text]), landmarks.directions, rows, numbers, weights)
    return numbers, weights


def rounded_cosines(landmarks: LandmarkArrays, text: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the products of bytes and their cosines, both (tokens, n)."""
    matrix = np.asarray(landmarks.landmarks, np.float64) * landmarks.scales - landmarks.center[:, np.newaxis]
    matrix /= np.linalg.norm(matrix, axis=0)
    unit = landmarks.directions.unit
    columns = np.rint(matrix / unit)
    norms = np.linalg.norm(text.astype(np.float64), axis=1, keepdims=True)
    rest = text / np.where(norms > 0, norms, 1) - landmarks.center
    token_units = abs(rest).max(axis=1, keepdims=True) / 127
    products = np.floor(rest / token_units + 0.5) @ columns
    return products, products * token_units * unit / np.linalg.norm(rest, axis=1, keepdims=True)


# -- selection --------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [1, 3, 32])
@pytest.mark.parametrize("levels", [1, 2, 30, 1 << 21])
@pytest.mark.parametrize("wanted", [1, 5, NEAREST])
def test_the_greatest_are_those_of_a_stable_sort(levels: int, wanted: int, chunks: int) -> None:
    rng = np.random.default_rng([levels, chunks])
    row = rng.integers(-levels, levels, chunks * CHUNK).astype(np.int32)
    order = np.argsort(-row.astype(np.int64), kind="stable")[:wanted]
    for bound in (row[order[-1]], row.min()):  # one that is exact, and one that all reach
        values, positions = selected(row, bound, np.empty(ROOM, np.int64), np.empty(wanted, np.int64))
        np.testing.assert_array_equal(positions, order)
        np.testing.assert_array_equal(values, row[order])


def test_integers_that_rise_replace_those_before_them() -> None:
    row = np.arange(8 * CHUNK, dtype=np.int32)
    _, positions = selected(row, LEAST, np.empty(ROOM, np.int64), np.empty(NEAREST, np.int64))
    np.testing.assert_array_equal(positions, np.arange(8 * CHUNK)[: -NEAREST - 1 : -1])


@pytest.mark.parametrize("levels", [1, 3, 1 << 21])
@pytest.mark.parametrize("position", [0, WIDE * LANES])
def test_the_bound_is_the_greatest_that_enough_maxima_reach(levels: int, position: int) -> None:
    maxima = np.random.default_rng(levels).integers(-levels, levels, 2 * WIDE * LANES).astype(np.int32)
    maxima[1] = LEAST
    own = np.sort(maxima[position : position + WIDE * LANES])[::-1]
    found = [bound_from(maxima, position, wanted) for wanted in range(1, NEAREST + 1)]
    assert found == own[:NEAREST].tolist()


# -- nearest landmarks and weights ------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 16, 20, 33, 100, 300])
@pytest.mark.parametrize("dimension", [16, 20, 128])
def test_nearest_landmarks_have_the_greatest_products(count: int, dimension: int) -> None:
    landmarks, text = landmarks_of(count, dimension), normals(19, dimension) + 1
    numbers, weights = nearest_of(landmarks, text)
    products, cosines = rounded_cosines(landmarks, text)
    kept = min(NEAREST, count)
    same = 0
    for t in range(len(text)):
        assert len(set(numbers[t])) == kept
        order = np.argsort(-products[t], kind="stable")[:kept]
        if not np.array_equal(numbers[t], order):
            continue  # a number halfway between two bytes was rounded to the other one
        same += 1
        powers = np.exp(SHARPNESS * (cosines[t, order] - ELSEWHERE))
        length = np.linalg.norm(text[t].astype(np.float64))
        np.testing.assert_allclose(weights[t], length * powers / (1 + powers.sum()), rtol=2e-6)
    assert same >= 0.9 * len(text)


def test_all_landmarks_are_alike_for_a_token_at_the_center() -> None:
    landmarks = landmarks_of(200, 16)
    landmarks.center[:] = 0
    numbers, weights = nearest_of(landmarks, np.zeros((2, 16), np.float32))
    np.testing.assert_array_equal(numbers, np.tile(np.arange(NEAREST), (2, 1)))
    assert (weights == 0).all()


def test_a_landmark_at_the_center_has_no_direction() -> None:
    landmarks = landmarks_of(20, 16)
    center = landmarks.landmarks[:, 3] * landmarks.scales[3]
    at_center = LandmarkArrays(center, landmarks.mean, landmarks.landmarks, landmarks.scales)
    numbers, weights = nearest_of(at_center, normals(5, 16))
    assert np.isfinite(weights).all() and ((numbers >= 0) & (numbers < 20)).all()


# -- queries ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("width", [5, 64, 200])
def test_bits_depend_on_no_other_query(dtype: Any, width: int) -> None:
    landmarks = landmarks_of(150, 24)
    texts = [normals(size, 24, seed=size).astype(dtype) for size in (3, 0, 32, 9, 1)]
    rng = np.random.default_rng(0)
    rows = rng.integers(-127, 128, (150, width)).astype(np.int8)
    cell_map = CellMap(rows, rng.random(width, np.float32), rows.sum(axis=0).astype(np.float32))
    tokens = kernel_tokens(texts)
    together = np.zeros((len(texts), width), np.float32)
    project_landmark_queries(tokens, 0, len(texts), landmarks.directions, cell_map, together)
    for i in range(len(texts)):
        alone = np.zeros((1, width), np.float32)
        project_landmark_queries(tokens, i, i + 1, landmarks.directions, cell_map, alone)
        np.testing.assert_array_equal(alone[0], together[i])

    cells = np.empty((len(texts), 150), np.float32)
    landmark_queries(tokens, 0, len(texts), landmarks.directions, SHARPNESS, cells)
    centered = cells.astype(np.float64) - cells.mean(axis=1, keepdims=True, dtype=np.float64)
    wanted = centered @ (rows * cell_map.scales.astype(np.float64))
    np.testing.assert_allclose(together, wanted, atol=1e-5 * max(1, abs(wanted).max()))
    lengths = [np.linalg.norm(text.astype(np.float64), axis=1).sum() for text in texts]
    # The rest of the lengths belongs to no landmark.
    assert (cells.sum(axis=1) <= np.array(lengths) * (1 + 1e-5)).all()
