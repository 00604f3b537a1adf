"""ProductQuantizer: vectors as one byte for every few consecutive entries (the paper's PQ-256-G)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..data.validation import read_only_view
from ..kernels.product_codes import CENTROIDS, PANELS, encode, pack_centroids, scan, tables, train
from ..kernels.tile import LANES
from ..utils.parallel import run_in_ranges
from .base import checked_dimension

__all__ = ["CENTROIDS", "ProductQuantizer"]

# Lloyd's rounds: the error falls by less than a hundredth in any later one.
_ROUNDS = 12

# Groups, vectors to encode, and bytes of codes to scan in one task.
_GROUPS, _VECTORS, _SCANNED_BYTES = 8, 256, 1 << 20


class ProductQuantizer:
    """A codebook of 256 centroids for each group of consecutive entries.

    A group's code is its nearest centroid's number.  The inner product with a query is the sum of one
    entry of a table for each group, made once a query ("asymmetric distance": the query is not
    rounded).  Centroid 0 is zero where the codebook was learned: FDEs of short texts are mostly
    empty cells, which lose nothing.

    Parameters
    ----------
    centroids : float32 (groups, 256, width)
    dimension : int
        Entries of a vector; the last group is filled up with zeros.
    """

    def __init__(self, centroids: NDArray[np.float32], dimension: int) -> None:
        self.dimension = checked_dimension(dimension)
        shape = centroids.shape
        fits = len(shape) == 3 and shape[1] == CENTROIDS and shape[0] == -(-dimension // max(1, shape[2]))
        if centroids.dtype != np.float32 or not fits:
            raise ValueError(
                f"centroids must be float32 (groups, {CENTROIDS}, width) for dimension={dimension}, "
                f"got {centroids.dtype} {shape}."
            )
        if not np.isfinite(centroids).all():
            raise ValueError("centroids have a NaN or an infinity.")
        self.groups, _, self.width = shape
        self._packed = np.zeros(self.groups * PANELS * (self.width + 1) * LANES, np.float32)
        pack_centroids(read_only_view(np.ascontiguousarray(centroids)), self._packed)

    @classmethod
    def train(
        cls, vectors: NDArray[np.float32], width: int, *, most: int, seed: int, threads: int | None = None
    ) -> ProductQuantizer:
        """Learn a codebook from a sample of `vectors` by k-means, each group for itself.

        The result depends on the seed and not on the number of threads.

        Parameters
        ----------
        vectors : float32 (n, dimension)
        width : int
            Entries of a group.
        most : int
            Vectors to learn from, at most.  Time grows in proportion.
        seed : int
        threads : int, optional
        """
        count, dimension = vectors.shape
        groups = -(-dimension // width)
        order = np.random.default_rng(seed).permutation(count)[:most]
        sample = read_only_view(_filled_up(vectors, groups * width))
        packed = np.zeros(groups * PANELS * (width + 1) * LANES, np.float32)
        ranges = [(start, min(start + _GROUPS, groups)) for start in range(0, groups, _GROUPS)]
        run_in_ranges(
            lambda start, stop: train(sample, order, start, stop, width, _ROUNDS, packed), ranges, threads
        )
        return cls(_unpacked(packed, groups, width), dimension)

    @property
    def centroids(self) -> NDArray[np.float32]:
        """The codebook, float32 (groups, 256, width)."""
        return _unpacked(self._packed, self.groups, self.width)

    def encode(self, vectors: NDArray[np.float32], threads: int | None = None) -> NDArray[np.uint8]:
        """Return the codes of float32 (n, dimension), uint8 (n, groups)."""
        codes = np.empty((len(vectors), self.groups), np.uint8)
        rows, packed = (
            read_only_view(_filled_up(vectors, self.groups * self.width)),
            read_only_view(self._packed),
        )
        ranges = [(start, min(start + _VECTORS, len(rows))) for start in range(0, len(rows), _VECTORS)]
        run_in_ranges(
            lambda start, stop: encode(rows, start, stop, self.width, packed, codes), ranges, threads
        )
        return codes

    def decode(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the vectors that codes (n, groups) stand for, float32 (n, dimension)."""
        picked = self.centroids[np.arange(self.groups), codes]
        return np.ascontiguousarray(picked.reshape(len(codes), -1)[:, : self.dimension])

    def products(
        self,
        codes: NDArray[np.uint8],
        positions: NDArray[np.int64],
        queries: NDArray[np.float32],
        threads: int | None = None,
    ) -> NDArray[np.float32]:
        """Return the inner products of the vectors coded at `positions` with queries, float32 (n, m).

        Groups in which a query is zero, as its empty cells are, cost nothing.
        """
        out = np.empty((len(queries), len(positions)), np.float32)
        flat, packed = read_only_view(codes).reshape(-1), read_only_view(self._packed)
        rows, asked = read_only_view(positions), read_only_view(_filled_up(queries, self.groups * self.width))

        def prepared(query: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            groups = asked[query].reshape(self.groups, self.width)
            active = np.flatnonzero((groups != 0).any(axis=1))
            table = np.empty((len(active), CENTROIDS), np.float32)
            tables(asked[query], active, packed, self.width, table)
            return active, table.reshape(-1)

        def answer(start: int, stop: int) -> None:
            for query in range(start, stop):
                scan(flat, self.groups, rows, *prepared(query), out[query])

        if len(queries) > 1:
            run_in_ranges(answer, [(query, query + 1) for query in range(len(queries))], threads)
        elif len(queries) == 1:
            ready = prepared(0)
            step = max(1, _SCANNED_BYTES // self.groups)
            ranges = [(start, min(start + step, len(rows))) for start in range(0, len(rows), step)]
            run_in_ranges(
                lambda a, b: scan(flat, self.groups, rows[a:b], *ready, out[0, a:b]), ranges, threads
            )
        transposed: NDArray[np.float32] = out.T
        return transposed


def _filled_up(vectors: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    if vectors.shape[1] == width:
        return np.ascontiguousarray(vectors)
    filled = np.zeros((len(vectors), width), np.float32)
    filled[:, : vectors.shape[1]] = vectors
    return filled


def _unpacked(packed: NDArray[np.float32], groups: int, width: int) -> NDArray[np.float32]:
    panels = packed.reshape(groups, PANELS, width + 1, LANES)[:, :, :width].transpose(0, 1, 3, 2)
    centroids: NDArray[np.float32] = np.ascontiguousarray(panels).reshape(groups, CENTROIDS, width)
    return centroids
