"""Random projections: the inner ones of a cell's vector, and the final count sketch.

Paper: arXiv 2405.19504, section 2, steps 2 and 4.  The inner projection psi maps the d
columns of a cell's vector to d_proj; the final projection psi' maps a whole FDE to
d_final.  The configuration calls them ``projection_dimension`` and
``final_projection_dimension``.

All projections preserve inner products in expectation,
E <psi(x), psi(y)> = <x, y> (Fact A.2).  Each is (R_reps, d_proj, d), scale included.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..utils.random_streams import random_stream

# Numbers of these purposes among the random streams of a seed.
_INNER, _FINAL = 1, 2


def draw_rademacher(
    seed: int, num_repetitions: int, projection_dimension: int, dimension: int
) -> NDArray[np.float64]:
    """Draw the paper's inner projections psi (section 2, step 2).

    psi(x) = S x / sqrt(d_proj), where S has independent entries +1 and -1.  The result
    is float64 (R_reps, d_proj, d); each repetition has a separate random stream.
    """
    shape = projection_dimension, dimension
    streams = (random_stream(seed, _INNER, r) for r in range(num_repetitions))
    signs = np.stack([_signs(stream, shape) for stream in streams])
    return np.asarray(signs / math.sqrt(projection_dimension))


def draw_complementary(
    seed: int, num_repetitions: int, projection_dimension: int, dimension: int
) -> NDArray[np.float64]:
    """Draw inner projections that lose nothing together; they are not in the paper.

    Each group of n = ceil(d / d_proj) repetitions shares one random rotation (Haar).
    Repetition i of a group takes the next d_proj of its rows, U_i:

        psi_i(x) = sqrt(n) U_i x,   so   sum_i <psi_i(x), psi_i(y)> / n = <x, y>.

    The average over a group is exact, which independent projections reach in
    expectation only.

    The result is float64 (R_reps, d_proj, d); each group has a separate random stream.
    """
    block = projection_dimension
    group = -(-dimension // block)
    rows = []
    for first in range(0, num_repetitions, group):
        stream = random_stream(seed, _INNER, first // group)
        count = min(group, num_repetitions - first) * block
        q, r = np.linalg.qr(stream.standard_normal((count, group * block)).T)
        # The signs make the rotation uniformly random: QR alone prefers some.
        rows.append((q * np.sign(np.diag(r))).T)
    projections = np.concatenate(rows).reshape(num_repetitions, block, group * block)
    return np.asarray(projections[:, :, :dimension] * math.sqrt(group))


def draw_count_sketches(
    seed: int, num_repetitions: int, projection_dimension: int, dimension: int
) -> NDArray[np.float32]:
    """Draw inner projections that add each column, with a sign, to one of d_proj sums.

    psi(x)_i = sum of s_j x_j over the columns j with target h_j = i.  The C++ reference
    projects in this way.

    The result is float32 (R_reps, d_proj, d), with one +1 or -1 in each column; each
    repetition has a separate random stream.  d_proj may exceed d.
    """
    sketches = [
        draw_count_sketch(random_stream(seed, _INNER, r), dimension, projection_dimension)
        for r in range(num_repetitions)
    ]
    return count_sketch_matrices(sketches, projection_dimension)


def draw_identity(
    seed: int, num_repetitions: int, projection_dimension: int, dimension: int
) -> NDArray[np.float32]:
    """Return the empty array that stands for psi(x) = x, with d_proj = d.

    All functions that draw projections have the same parameters.
    """
    return np.empty((0, 0, 0), np.float32)


def draw_final_count_sketch(
    seed: int, sketch_dimension: int, final_projection_dimension: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Draw the final projection psi' of a whole FDE (section 2, step 4).

    psi'(F)_i = sum of s_j F_j over the floats j with target h_j = i.

    Return the targets h, int64 (sketch_dimension,), below d_final, and the signs s,
    float32 (sketch_dimension,).  An FDE has sketch_dimension = R_reps * 2**k_sim *
    d_proj floats before the projection.
    """
    return draw_count_sketch(random_stream(seed, _FINAL), sketch_dimension, final_projection_dimension)


def draw_count_sketch(
    stream: np.random.Generator, count: int, size: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Draw the targets, below `size`, and then the signs of `count` floats."""
    return stream.integers(0, size, count), _signs(stream, (count,)).astype(np.float32)


def count_sketch_matrices(
    sketches: list[tuple[NDArray[np.int64], NDArray[np.float32]]], size: int
) -> NDArray[np.float32]:
    """Return count sketches as matrices, float32 (R_reps, d_proj, d).

    Each sketch has targets (d,) and signs (d,).  The entry in row ``targets[j]`` of
    column j is ``signs[j]``, all others are zero.  `size` is d_proj.
    """
    out = np.zeros((len(sketches), size, len(sketches[0][0])), np.float32)
    for matrix, (targets, signs) in zip(out, sketches, strict=True):
        matrix[targets, np.arange(len(targets))] = signs
    return out


def _signs(stream: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int64]:
    return stream.integers(0, 2, shape) * 2 - 1
