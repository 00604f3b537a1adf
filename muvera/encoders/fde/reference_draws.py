"""Random draws of the C++ reference (google/graph-mining, ``sketching/point_cloud``), replayed in NumPy.

Every repetition r starts a new ``std::mt19937(seed + r)``, once for its hyperplanes and again for its projection.
The C++ standard does not specify the distributions: these are the draws of GNU libstdc++ as shipped with GCC 11
and later (checked with 12 and 14).
"""

import numpy as np
from numpy.typing import NDArray

_WORD = 2**32
_BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))


def hyperplanes(seed: int, dimension: int, repetitions: int, bits: int) -> NDArray[np.float32]:
    """Draw Gaussian normals, float32 (repetitions * bits, dimension).

    They equal the C++ draws except for the last bits of 0.3 % of the entries, see
    :func:`standard_normals`.
    """
    # The C++ matrix is (d, k) and filled column by column: a hyperplane's entries are neighbors.
    blocks = [standard_normals(seed + r, bits * dimension) for r in range(repetitions)]
    return np.concatenate(blocks).reshape(repetitions * bits, dimension)


def count_sketches(seed: int, dimension: int, repetitions: int, block: int) -> NDArray[np.float32]:
    """Draw one -1 or 1 per column (the reference's ``AMS_SKETCH``), float32 (R, block, dimension).

    They equal the C++ draws.  They are not scaled, and they are used even if block = dimension.
    """
    sketches = np.zeros((repetitions, block, dimension), np.float32)
    for r, sketch in enumerate(sketches):
        targets, signs = count_sketch(seed + r, dimension, block)
        sketch[targets, np.arange(dimension)] = signs
    return sketches


def words(engine: np.random.RandomState, count: int) -> NDArray[np.uint32]:
    """Return the next `count` words of an engine, in order.

    Examples
    --------
    The C++ standard prescribes the 10,000th word of the default seed.

    >>> int(words(np.random.RandomState(5489), 10_000)[-1])
    4123659995
    """
    return engine.randint(0, _WORD, size=count, dtype=np.uint32)


def _engine(seed: int) -> np.random.RandomState:
    """Return ``std::mt19937(seed)``; NumPy keeps the stream of RandomState between versions."""
    return np.random.RandomState(seed % _WORD)


def standard_normals(seed: int, count: int) -> NDArray[np.float32]:
    """Draw ``std::normal_distribution<float>(0, 1)`` from a fresh ``std::mt19937(seed)``.

    Marsaglia's polar method: two uniforms in (-1, 1) make a point, and points outside the unit disc (or at its
    center) are dropped.  Each point gives two values, first that of its second coordinate.

    The logarithm is taken in float64 and rounded, so the values do not depend on the machine.  C's
    ``logf`` is not correctly rounded: with glibc 2.41, 0.3 % of the values differ from the C++ program's,
    by at most 3 units in the last place.
    """
    engine = _engine(seed)
    needed = (count + 1) // 2
    points: list[NDArray[np.float32]] = [np.empty((0, 2), np.float32)]
    squares: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
    drawn = 0
    while drawn < needed:
        # pi/4 of the points are kept; with 1.5 times as many, only small draws need a second round.
        batch = words(engine, 2 * (int(1.5 * (needed - drawn)) + 8))
        # generate_canonical<float>: one word over 2**32.  Rounding a large word to 24 bits can reach 1,
        # which the library then reduces below 1.
        uniform = np.minimum(batch.astype(np.float32) / np.float32(_WORD), _BELOW_ONE)
        candidates = (np.float32(2) * uniform - np.float32(1)).reshape(-1, 2)
        square = candidates[:, 0] * candidates[:, 0] + candidates[:, 1] * candidates[:, 1]
        inside = (square <= 1) & (square != 0)
        points.append(candidates[inside])
        squares.append(square[inside])
        drawn += int(np.count_nonzero(inside))
    point = np.concatenate(points)[:needed]
    square = np.concatenate(squares)[:needed]
    logarithm = np.log(square.astype(np.float64)).astype(np.float32)
    factor = np.sqrt(np.float32(-2) * logarithm / square)
    # The mean is added last, which turns a negative zero into a positive one.
    values: NDArray[np.float32] = point[:, ::-1] * factor[:, np.newaxis] + np.float32(0)
    return values.reshape(-1)[:count]


def count_sketch(seed: int, rows: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Draw pairs of ``uniform_int_distribution(0, size - 1)`` and ``2 * bernoulli_distribution(0.5) - 1``.

    One fresh ``std::mt19937(seed)`` draws both, a pair per row.  `size` is at most 2**31.

    Returns
    -------
    targets : int64 (rows,)
    signs : float32 (rows,)
    """
    engine = _engine(seed)
    drawn = words(engine, 3 * rows)
    # The integer is Lemire's: the high half of word * size, redrawn if the low half is below the threshold.
    # A redraw shifts all later words by one.  Redraws are rare (size in 2**32), so each rejected word is
    # removed from the stream in turn, without a loop over all rows.
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
