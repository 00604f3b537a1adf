"""Draws of fastembed's ``Muvera`` (Python, version 0.9.1).

One ``numpy.random.default_rng(seed)`` draws the hyperplanes of all repetitions first and then all
projections, so the projections depend on R and k.  NumPy may change the streams of ``Generator`` between
versions; these functions make the same calls, so they agree with a fastembed that runs on the same NumPy.
"""

import numpy as np
from numpy.typing import NDArray

from .sizes import DrawSizes

#: Seed of fastembed's constructor when none is given.
DEFAULT_SEED = 42


def hyperplanes(sizes: DrawSizes) -> NDArray[np.float64]:
    """Gaussian hyperplane normals, a repetition a block.

    Parameters
    ----------
    sizes : DrawSizes
        Its seed is not negative; p is not used.

    Returns
    -------
    ndarray of float64, shape (R, k, d)
        In float64 because fastembed takes the signs of its dot products in float64: rounded normals
        would move tokens that lie very near a hyperplane.  Equal to fastembed's to the bit.
    """
    normals, _ = _draw(sizes)
    return normals


def projections(sizes: DrawSizes) -> NDArray[np.float32] | None:
    """Dense sign projections with their scale, or none when p = d.

    Parameters
    ----------
    sizes : DrawSizes
        The k hyperplanes of a repetition are drawn from the same stream, before the projections.

    Returns
    -------
    ndarray of float32, shape (R, p, d), or None
        Entries -1 and 1 over the square root of p; None when p = d.  fastembed multiplies by the signs and
        the scale in float64, which float32 rounding of the scale matches to 6e-8 of each entry.
    """
    repetitions, projected, dimension = sizes.projections_shape
    if projected == dimension:
        return None
    _, generator = _draw(sizes)
    signs = generator.choice([-1, 1], size=(repetitions, dimension, projected))
    scaled: NDArray[np.float64] = signs.transpose(0, 2, 1) / np.sqrt(projected)
    return np.ascontiguousarray(scaled, dtype=np.float32)


def _draw(sizes: DrawSizes) -> tuple[NDArray[np.float64], np.random.Generator]:
    """Hyperplanes (R, k, d), and the generator where the projections follow."""
    repetitions, bits, dimension = sizes.hyperplanes_shape
    generator = np.random.default_rng(sizes.seed)
    # One draw of all repetitions reads the stream as R draws of (d, k) do.
    normals = generator.normal(size=(repetitions, dimension, bits))
    return np.ascontiguousarray(normals.transpose(0, 2, 1)), generator
