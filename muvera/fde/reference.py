"""Random draws of the C++ reference, replayed in NumPy.

The reference is google/graph-mining, ``sketching/point_cloud``.  Each repetition r
starts a new ``std::mt19937(seed + r)``, once for its hyperplanes and again for its
inner projection.  It uses the distributions of GNU libstdc++ as shipped with GCC 11
and later (checked with 12 and 14).

The functions ``draw_*`` have the parameters of :mod:`muvera.fde.partition` and
:mod:`muvera.fde.projection`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .projection import count_sketch_matrices

_WORD = 2**32
_BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))


def draw_hyperplanes(
    seed: int, num_repetitions: int, num_simhash_projections: int, dimension: int
) -> NDArray[np.float32]:
    """Draw the normals, float32 (R_reps * k_sim, d), of all hyperplanes.

    g ~ N(0, I_d) (section 2, step 1).
    """
    # The C++ matrix is (d, k) and filled column by column: a hyperplane's entries are
    # neighbors.
    count = num_simhash_projections * dimension
    drawn = [standard_normals(seed + r, count) for r in range(num_repetitions)]
    return np.concatenate(drawn).reshape(-1, dimension)


def draw_count_sketches(
    seed: int, num_repetitions: int, projection_dimension: int, dimension: int
) -> NDArray[np.float32]:
    """Draw inner projections that add each column, with a sign, to one of d_proj sums.

    The result is float32 (R_reps, d_proj, d), with one +1 or -1 in each column.
    """
    sketches = [count_sketch(seed + r, dimension, projection_dimension) for r in range(num_repetitions)]
    return count_sketch_matrices(sketches, projection_dimension)


def draw_final_count_sketch(
    seed: int, sketch_dimension: int, final_projection_dimension: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Draw the final projection of a whole FDE (section 2, step 4).

    See :func:`muvera.fde.projection.draw_final_count_sketch`.
    """
    return count_sketch(seed, sketch_dimension, final_projection_dimension)


def words(engine: np.random.RandomState, count: int) -> NDArray[np.uint32]:
    """Return the next words of an engine, in order, which advances by `count` words.

    Examples
    --------
    The C++ standard prescribes this word:

    >>> int(words(np.random.RandomState(5489), 10_000)[-1])
    4123659995
    """
    return engine.randint(0, _WORD, size=count, dtype=np.uint32)


def _engine(seed: int) -> np.random.RandomState:
    """Return ``std::mt19937(seed)``.

    NumPy keeps the stream of RandomState between versions.
    """
    return np.random.RandomState(seed % _WORD)


def standard_normals(seed: int, count: int) -> NDArray[np.float32]:
    """Draw standard normals from a fresh ``std::mt19937(seed)``.

    The distribution is ``std::normal_distribution<float>(0, 1)``.  The seed is taken
    modulo 2**32.  Fewer values are the beginning of more.

    With glibc 2.41, 0.3 % of the values differ from the values of the C++ program, by
    at most 3 units in the last place: C's ``logf`` is not correctly rounded.
    """
    # Marsaglia's polar method: points of two uniforms in (-1, 1), without those outside
    # the unit disc or at its center.
    engine = _engine(seed)
    needed = (count + 1) // 2
    points = np.empty((0, 2), np.float32)
    while len(points) < needed:
        # pi/4 of the points are kept; with 1.5 times as many, only small draws need a
        # second round.
        batch = words(engine, 2 * (int(1.5 * (needed - len(points))) + 8))
        # generate_canonical<float>: one word over 2**32.  Rounding a large word to 24
        # bits can reach 1, which the library then reduces below 1.
        uniform = np.minimum(batch.astype(np.float32) / np.float32(_WORD), _BELOW_ONE)
        candidates = (np.float32(2) * uniform - np.float32(1)).reshape(-1, 2)
        square = _square(candidates)
        points = np.concatenate([points, candidates[(square <= 1) & (square != 0)]])
    points = points[:needed]
    square = _square(points)
    # In float64 and rounded, so the values do not depend on the machine.
    logarithm = np.log(square.astype(np.float64)).astype(np.float32)
    factor = np.sqrt(np.float32(-2) * logarithm / square)
    # The second coordinate comes first.  The mean is added last, which turns a negative
    # zero into a positive zero.
    values: NDArray[np.float32] = points[:, ::-1] * factor[:, np.newaxis] + np.float32(0)
    return values.reshape(-1)[:count]


def _square(points: NDArray[np.float32]) -> NDArray[np.float32]:
    return points[:, 0] * points[:, 0] + points[:, 1] * points[:, 1]


def count_sketch(seed: int, rows: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Draw the targets, below `size`, and the signs, +1 or -1, of a count sketch.

    A fresh ``std::mt19937(seed)`` draws a pair per row: the target from
    ``uniform_int_distribution(0, size - 1)``, then the sign as
    ``2 * bernoulli_distribution(0.5) - 1``.  The seed is taken modulo 2**32, and `size`
    is at most 2**31.
    """
    engine = _engine(seed)
    drawn = words(engine, 3 * rows)
    # The integer is Lemire's: the high half of word * size, redrawn if the low half is
    # below the threshold.  Redraws are rare (size in 2**32), so each rejected word is
    # removed from the stream in turn.
    threshold = _WORD % size
    while True:
        product = drawn[0::3].astype(np.uint64) * np.uint64(size)
        redrawn = np.flatnonzero((product & np.uint64(_WORD - 1)) < threshold)
        if not redrawn.size:
            break
        drawn = np.concatenate([np.delete(drawn, 3 * redrawn[0]), words(engine, 1)])
    targets = (product >> np.uint64(32)).astype(np.int64)
    # The sign compares a double, made of two words with the low one first, with 0.5.
    canonical = (drawn[1::3].astype(np.float64) + drawn[2::3].astype(np.float64) * _WORD) / 2.0**64
    return targets, np.where(canonical < 0.5, np.float32(1), np.float32(-1))
