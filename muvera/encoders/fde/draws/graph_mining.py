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

#: Seed of the reference's configuration when none is set.
DEFAULT_SEED = 1


def hyperplanes(
    *, dimension: int, num_repetitions: int, num_simhash_projections: int, seed: int
) -> NDArray[np.float32]:
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
        Repetition r uses ``seed + r`` modulo 2**32.

    Returns
    -------
    ndarray of float32, shape (R, k, d)
        Equal to the C++ draws but for the last bits of 0.3 % of the entries, see
        `libstdcxx.standard_normals`.
    """
    normals = np.empty((num_repetitions, num_simhash_projections, dimension), dtype=np.float32)
    for repetition, block in enumerate(normals):
        # The C++ matrix is (d, k) and filled column by column: a hyperplane's entries are neighbors.
        block[...] = libstdcxx.standard_normals(seed + repetition, block.size).reshape(block.shape)
    return normals


def projections(
    *,
    kind: Literal["identity", "count_sketch"],
    dimension: int,
    num_repetitions: int,
    projection_dimension: int,
    seed: int,
) -> NDArray[np.float32] | None:
    """Inner projections: none, or one count sketch per repetition (the reference's ``AMS_SKETCH``).

    Parameters
    ----------
    kind : {"identity", "count_sketch"}
        ``"count_sketch"`` sends each coordinate of a token, with a random sign, to one of p targets; it is
        not scaled, and it is used even when p = d.
    dimension : int
        Width d of a token.
    num_repetitions : int
        Repetitions R.
    projection_dimension : int
        Targets p; ignored for ``"identity"``.
    seed : int
        Repetition r uses ``seed + r`` modulo 2**32.

    Returns
    -------
    ndarray of float32, shape (R, p, d), or None
        One -1 or 1 in each column; None for ``"identity"``.  Equal to the C++ draws.
    """
    if kind == "identity":
        return None
    sketches = np.zeros((num_repetitions, projection_dimension, dimension), dtype=np.float32)
    for repetition, sketch in enumerate(sketches):
        targets, signs = libstdcxx.count_sketch(seed + repetition, dimension, projection_dimension)
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
