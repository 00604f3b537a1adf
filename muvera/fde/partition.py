"""SimHash partitions: hyperplanes and the order of their cells.

Paper: arXiv 2405.19504, section 2, step 1.  Names there: k_sim hyperplanes in each of
R_reps repetitions, so a repetition has B = 2**k_sim cells.  The configuration calls
them ``num_simhash_projections`` and ``num_repetitions``.

A token x has one bit per hyperplane g_j of a repetition, the sign of their product:

    phi(x) = (1[<g_1, x> > 0], ..., 1[<g_k, x> > 0])

Bit j of a token's *code* is the bit of hyperplane j.  Two tokens have different bits
with probability angle / pi (Claim A.4), so near tokens tend to share a cell.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.random_streams import random_stream

# Number of this purpose among the random streams of a seed.
_HYPERPLANES = 0

# Lower bound on a normal's length, against division by zero.
_SHORTEST = 1e-30


def draw_hyperplanes(
    seed: int, num_repetitions: int, num_simhash_projections: int, dimension: int
) -> NDArray[np.float64]:
    """Draw the normals of all hyperplanes, g ~ N(0, I_d) (section 2, step 1).

    They are float64 (R_reps * k_sim, d); the k_sim hyperplanes of a repetition are
    neighbors.  Each repetition has a separate random stream, so its hyperplanes do not
    depend on the number of repetitions.
    """
    shape = num_simhash_projections, dimension
    streams = (random_stream(seed, _HYPERPLANES, r) for r in range(num_repetitions))
    return np.concatenate([stream.standard_normal(shape) for stream in streams])


def cell_positions(num_simhash_projections: int) -> NDArray[np.int64]:
    """Return the positions of the cells in a repetition: a code is its position.

    They are int64 (2**k_sim,), the position of each code's block of floats.
    """
    return np.arange(2**num_simhash_projections)


def gray_positions(num_simhash_projections: int) -> NDArray[np.int64]:
    """Return the positions of the cells in a repetition of the C++ reference.

    They are int64 (2**k_sim,), the position of each code's block of floats.  The
    reference takes hyperplane 0 as the high bit.  It then reads the bits as a Gray code
    g, in which neighboring positions differ in one bit.  The position b has the bits
    b_0 = g_0 and b_j = g_j xor b_(j-1), from the high bit on.
    """
    codes = np.arange(2**num_simhash_projections)
    position = np.zeros_like(codes)
    for j in range(num_simhash_projections):
        position = (position << 1) + (((codes >> j) & 1) ^ (position & 1))
    return position


def inverse_norms(hyperplanes: NDArray[Any]) -> NDArray[np.float32]:
    """Return one over the length of each hyperplane's normal, (R_reps * k_sim,).

    ``|<g, x>| / ||g||`` is the distance of a token from a hyperplane, which determines
    the weights of soft query cells.
    """
    norms = np.linalg.norm(hyperplanes.astype(np.float64), axis=1)
    return np.asarray(1 / np.maximum(norms, _SHORTEST), np.float32)
