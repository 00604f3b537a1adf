"""Local intrinsic dimension of shapes whose dimension is known."""

from typing import Any

import numpy as np
import pytest

from muvera.diagnostics.intrinsic_dimension import (
    _estimates,
    intrinsic_dimension,
    local_intrinsic_dimensions,
)


def ball(dimension: int, count: int = 10_000, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(count, dimension))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.asarray(directions * rng.random((count, 1)) ** (1 / dimension))


@pytest.mark.parametrize("dimension", [1, 2, 8, 16, 100])
def test_the_estimator_on_distances_that_grow_as_in_d_dimensions(dimension: int) -> None:
    """k uniform volumes are d-th powers of distances: 1,000 times 99 terms, a standard error of .3 %."""
    volumes = np.sort(np.random.default_rng(0).random((1000, 100)), axis=1)
    local = _estimates(volumes ** (2 / dimension))
    assert 1 / np.mean(1 / local) == pytest.approx(dimension, rel=0.01)


@pytest.mark.parametrize(("dimension", "low"), [(2, 0.9), (8, 0.85), (16, 0.75)])
def test_a_ball_has_its_dimension(dimension: int, low: float) -> None:
    """With 100 of 10,000 neighborhoods reach over the edge, the further the more dimensions: too low."""
    found = intrinsic_dimension(ball(dimension), sample=300, space="euclidean")
    assert found is not None
    assert low * dimension <= found.overall <= 1.05 * dimension
    assert found.overall <= found.mean <= found.p95
    assert (found.vectors, found.neighbors) == (10_000, 100)


def test_a_line_has_one_dimension() -> None:
    rng = np.random.default_rng(0)
    line = rng.random((3000, 1)) * rng.normal(size=(1, 128)) + rng.normal(size=128)
    found = intrinsic_dimension(line, 50, sample=300, space="euclidean")
    assert found is not None and found.overall == pytest.approx(1, abs=0.05)


def test_scale_and_rotation_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 12))
    rotation = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    for space in ("euclidean", "cosine", "inner_product"):
        first = local_intrinsic_dimensions(vectors, 30, space=space)
        np.testing.assert_allclose(
            local_intrinsic_dimensions(7 * vectors @ rotation, 30, space=space),
            first,
            rtol=1e-6,
        )


def test_spaces_are_those_of_a_graph() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(300, 9)) * rng.uniform(0.5, 2, (300, 1))
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = local_intrinsic_dimensions(vectors, 20, space="cosine")
    np.testing.assert_allclose(cosine, local_intrinsic_dimensions(units, 20, space="euclidean"), rtol=1e-6)
    # Among vectors of one norm, all three are the same.
    np.testing.assert_allclose(
        local_intrinsic_dimensions(units, 20, space="inner_product"),
        local_intrinsic_dimensions(units, 20, space="euclidean"),
        rtol=1e-4,
    )


def test_duplicates_are_left_out() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(200, 5))
    doubled = np.repeat(vectors, 2, axis=0)
    found = local_intrinsic_dimensions(doubled, 41, space="euclidean", sample=400)
    assert np.isfinite(found).all() and found.mean() < 10
    assert np.isnan(local_intrinsic_dimensions(np.ones((30, 4)), 5)).all()
    assert intrinsic_dimension(np.ones((30, 4)), 5) is None


def test_the_sample_is_drawn_by_the_seed() -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 6))
    first = local_intrinsic_dimensions(vectors, 10, sample=20, seed=1)
    assert len(first) == 20
    assert np.array_equal(first, local_intrinsic_dimensions(vectors, 10, sample=20, seed=1))
    assert not np.array_equal(first, local_intrinsic_dimensions(vectors, 10, sample=20, seed=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 30}, "k must be between 2 and 29, got 30. k must be less than the number of vectors."),
        ({"k": 1}, "k must be between 2 and 29, got 1."),
        ({"sample": 0}, "sample must be at least 1, got 0."),
        ({"space": "l2"}, "space must be one of euclidean, cosine, inner_product, got 'l2'."),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        local_intrinsic_dimensions(np.eye(30), **{"k": 5, **changes})
