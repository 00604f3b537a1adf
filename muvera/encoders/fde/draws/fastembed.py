"""Draws of fastembed's ``Muvera`` (Python, version 0.9.1).

One ``numpy.random.default_rng(seed)`` draws the hyperplanes of all repetitions first and then all
projections, so the projections depend on R and k.  NumPy may change the streams of ``Generator`` between
versions; these functions make the same calls, so they agree with a fastembed that runs on the same NumPy.
"""

import numpy as np
from numpy.typing import NDArray

#: Seed of fastembed's constructor when none is given.
DEFAULT_SEED = 42


def hyperplanes(
    *, dimension: int, num_repetitions: int, num_simhash_projections: int, seed: int
) -> NDArray[np.float64]:
    """Gaussian hyperplane normals, a repetition a block.

    Parameters
    ----------
    dimension : int
        Width d of a token.
    num_repetitions : int
        Repetitions R.
    num_simhash_projections : int
        Hyperplanes k of a repetition.
    seed : int
        Non-negative seed of the generator.

    Returns
    -------
    ndarray of float64, shape (R, k, d)
        In float64 because fastembed takes the signs of its dot products in float64: rounded normals
        would move tokens that lie very near a hyperplane.  Equal to fastembed's to the bit.
    """
    normals, _ = _draw(dimension, num_repetitions, num_simhash_projections, seed)
    return normals


def projections(
    *,
    dimension: int,
    num_repetitions: int,
    num_simhash_projections: int,
    projection_dimension: int,
    seed: int,
) -> NDArray[np.float32] | None:
    """Dense sign projections with their scale, or none when p = d.

    Parameters
    ----------
    dimension : int
        Width d of a token.
    num_repetitions : int
        Repetitions R.
    num_simhash_projections : int
        Hyperplanes k of a repetition: they are drawn from the same stream, before the projections.
    projection_dimension : int
        Width p of a projected token, at most d.
    seed : int
        Non-negative seed of the generator.

    Returns
    -------
    ndarray of float32, shape (R, p, d), or None
        Entries -1 and 1 over the square root of p; None when p = d.  fastembed multiplies by the signs and
        the scale in float64, which float32 rounding of the scale matches to 6e-8 of each entry.
    """
    if projection_dimension == dimension:
        return None
    _, generator = _draw(dimension, num_repetitions, num_simhash_projections, seed)
    signs = generator.choice([-1, 1], size=(num_repetitions, dimension, projection_dimension))
    scaled: NDArray[np.float64] = signs.transpose(0, 2, 1) / np.sqrt(projection_dimension)
    return np.ascontiguousarray(scaled, dtype=np.float32)


def _draw(
    dimension: int, num_repetitions: int, num_simhash_projections: int, seed: int
) -> tuple[NDArray[np.float64], np.random.Generator]:
    """Hyperplanes (R, k, d), and the generator where the projections follow."""
    generator = np.random.default_rng(seed)
    # One draw of all repetitions reads the stream as R draws of (d, k) do.
    normals = generator.normal(size=(num_repetitions, dimension, num_simhash_projections))
    return np.ascontiguousarray(normals.transpose(0, 2, 1)), generator
