"""Draws of the C++ reference (google/graph-mining, ``sketching/point_cloud``).

Every repetition starts a fresh ``std::mt19937(seed + r)``, once for its hyperplanes and once more for its
projection, so repetition r does not depend on how many there are, and seed s + 1 shares all but one
repetition with seed s.  The distributions are those of GNU libstdc++: a build with another C++ standard
library draws other numbers from the same seed.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from . import libstdcxx
from .sizes import DrawSizes

#: Seed of the reference's configuration when none is set.
DEFAULT_SEED = 1


def hyperplanes(sizes: DrawSizes) -> NDArray[np.float32]:
    """Gaussian hyperplane normals, a repetition a block.

    Parameters
    ----------
    sizes : DrawSizes
        Repetition r uses ``seed + r`` modulo 2**32; p is not used.

    Returns
    -------
    ndarray of float32, shape (R, k, d)
        Equal to the C++ draws but for the last bits of 0.3 % of the entries, see
        `libstdcxx.standard_normals`.
    """
    normals = np.empty(sizes.hyperplanes_shape, dtype=np.float32)
    for repetition, block in enumerate(normals):
        # The C++ matrix is (d, k) and filled column by column: a hyperplane's entries are neighbors.
        block[...] = libstdcxx.standard_normals(sizes.seed + repetition, block.size).reshape(block.shape)
    return normals


def projections(sizes: DrawSizes, *, kind: Literal["identity", "count_sketch"]) -> NDArray[np.float32] | None:
    """Inner projections: none, or one count sketch per repetition (the reference's ``AMS_SKETCH``).

    Parameters
    ----------
    sizes : DrawSizes
        Repetition r uses ``seed + r`` modulo 2**32; k is not used.
    kind : {"identity", "count_sketch"}
        ``"count_sketch"`` sends each coordinate of a token, with a random sign, to one of p targets; it is
        not scaled, and it is used even when p = d.

    Returns
    -------
    ndarray of float32, shape (R, p, d), or None
        One -1 or 1 in each column; None for ``"identity"``.  Equal to the C++ draws.
    """
    if kind == "identity":
        return None
    sketches = np.zeros(sizes.projections_shape, dtype=np.float32)
    _, projected, dimension = sketches.shape
    for repetition, sketch in enumerate(sketches):
        targets, signs = libstdcxx.count_sketch(sizes.seed + repetition, dimension, projected)
        sketch[targets, np.arange(dimension)] = signs
    return sketches


def final_count_sketch(
    *, input_dimension: int, final_dimension: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Count sketch of a whole FDE: ``out[targets[i]] += signs[i] * fde[i]``, unscaled.

    Parameters
    ----------
    input_dimension : int
        Length D of the FDE before it.
    final_dimension : int
        Length after it.
    seed : int
        Used as it is, modulo 2**32: the same stream that repetition 0 starts from.

    Returns
    -------
    targets : ndarray of int64, shape (D,)
        Values in ``[0, final_dimension)``.
    signs : ndarray of float32, shape (D,)
        Values -1 and 1.
    """
    return libstdcxx.count_sketch(seed, input_dimension, final_dimension)
