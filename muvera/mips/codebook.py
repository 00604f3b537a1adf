"""Codebook: short codes of vectors, 4 bits per pair of columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.scan import BLOCK, CENTROIDS, STEP, encode_rows, fit_centroids
from ..utils.parallel import run_in_ranges, split_by_count
from .base import Floats

# Iterations of Lloyd's algorithm.
_ITERATIONS = 10

# Share of the sum of squared variances that the coded columns must have.  Inner
# products then vary nearly as much as with all columns.
_SHARE = 0.97

# Number of rows per encoding task.
_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Codebook:
    """Pairs of columns and their centroids, which make the codes of vectors.

    Parameters
    ----------
    columns : int64 (n,)
        The columns of a vector that make its code, in order: columns 2 i and 2 i + 1 of
        this order are pair i.
    centroids : float32 (pairs, 2, CENTROIDS)
        Centroids of each pair, `pairs` being a multiple of STEP.
    """

    columns: NDArray[np.int64]
    centroids: NDArray[np.float32]

    @classmethod
    def empty(cls, dimension: int) -> Codebook:
        """Return a codebook whose centroids are zero."""
        steps = -(-dimension // (2 * STEP))
        return cls(np.arange(dimension), np.zeros((STEP * steps, 2, CENTROIDS), np.float32))

    @classmethod
    def fit(cls, sample: Floats, *, many: bool = False) -> Codebook:
        """Fit the pairs and the centroids to a sample of at least one vector.

        If the collection has `many` vectors, drop the half of the columns with the
        smallest variances, repeatedly, while the others keep 97% of the squared
        variances.  The codes are then shorter and less accurate.
        """
        spreads = sample.astype(np.float64).var(axis=0)
        coded = _coded_columns(spreads) if many else np.arange(len(spreads))
        columns = coded[paired_columns(spreads[coded])]
        starts = np.random.default_rng(1).permutation(max(len(sample), CENTROIDS))[:CENTROIDS] % len(sample)
        fitted = cls(columns, np.empty_like(cls.empty(len(coded)).centroids))
        fit_centroids(fitted.paired(sample), starts, _ITERATIONS, fitted.centroids)
        return fitted

    @property
    def pairs(self) -> int:
        """Number of pairs of columns."""
        return len(self.centroids)

    @property
    def steps(self) -> int:
        """Number of steps of STEP pairs."""
        return self.pairs // STEP

    def new_codes(self, rows: int) -> NDArray[np.uint8]:
        """Return zero codes of vectors, uint8 (blocks, steps * STEP / 2, BLOCK)."""
        return np.zeros((-(-rows // BLOCK), self.pairs // 2, BLOCK), np.uint8)

    def paired(self, vectors: Floats) -> Floats:
        """Return vectors with their columns in the order of pairs.

        The shape is (n, 2 * pairs), padded with zeros.
        """
        paired = np.zeros((len(vectors), 2 * self.pairs), np.float32)
        paired[:, : len(self.columns)] = vectors[:, self.columns]
        return paired

    def encode(
        self, codes: NDArray[np.uint8], first: int, vectors: Floats, threads: int | None = None
    ) -> None:
        """Write the codes of vectors into zero codes of :meth:`new_codes`.

        `first` is the row in `codes` of the first vector; the rows are consecutive.
        """
        flat = codes.reshape(-1)

        def work(start: int, stop: int) -> None:
            encode_rows(self.paired(vectors[start:stop]), self.centroids, first + start, self.steps, flat)

        run_in_ranges(work, split_by_count(len(vectors), _ROWS), threads)


def are_columns(columns: NDArray[Any], dimension: int) -> bool:
    """Return True for different column numbers whose count divides `dimension`.

    `columns` is as read from a file.
    """
    if columns.dtype != np.int64 or columns.ndim != 1 or not len(columns) or dimension % len(columns):
        return False
    ordered = np.sort(columns)
    return bool(ordered[0] >= 0 and ordered[-1] < dimension and (np.diff(ordered) > 0).all())


def _coded_columns(spreads: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the columns that make codes, ascending.

    The half of the columns with the smallest `spreads` (variances) is left out as
    long as the others have the share _SHARE of the sum of squared spreads, and their
    number is a multiple of ``2 * STEP``.
    """
    order = np.argsort(-spreads, kind="stable")
    squares = np.square(spreads[order])
    count = len(order)
    while count % (4 * STEP) == 0 and squares[: count // 2].sum() >= _SHARE * squares.sum():
        count //= 2
    return np.sort(order[:count])


def paired_columns(spreads: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return an order of columns by their spreads.

    High-variance columns are paired with low-variance columns, and steps mix such
    pairs.  Both reduce rounding errors: of 4-bit codes, and of the table entries of a
    step, whose sum is one byte.
    """
    order = np.argsort(-spreads, kind="stable")
    half = -(-len(order) // 2)
    pairs = [[order[i], *order[half:][::-1][i : i + 1]] for i in range(half)]
    full = len(order) // 2 // STEP * STEP  # pairs in whole steps
    steps = np.arange(full).reshape(STEP, -1)
    steps[1::2] = steps[1::2, ::-1]
    places = [*steps.T.reshape(-1).tolist(), *range(full, half)]
    return np.array([column for i in places for column in pairs[i]], np.int64)
