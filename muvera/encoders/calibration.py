"""Calibration: coefficients of a vector's blocks, fitted to exact Chamfer by least squares.

Windows of sampled documents serve as queries; a window's own document is excluded.  The regression predicts
exact Chamfer of the best documents of each query, centered per query: a search has to separate those, and a
constant per query does not change the ranking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_kernel_arrays
from ..data.sampling import pseudo_queries
from ..kernels.chamfer import score_documents
from ..kernels.tile import pack_columns
from ..utils.parallel import run_in_ranges, split_by_weight
from .matmul import one_blas_thread, product
from .moment_blocks import (
    DEFAULT_COEFFICIENTS,
    BlockWriter,
    MomentBlocks,
    covariance_directions,
    default_blocks,
    moment_dimension,
    principal_directions,
)

__all__ = ["SAMPLE_DOCUMENTS", "Sketches", "calibrate", "similarities_of"]

#: Largest number of documents whose exact similarities are computed.
SAMPLE_DOCUMENTS = 512

# Number of pseudo-queries, and their number of tokens if no queries are given.
_QUERIES, _LENGTH, _LONGEST = 100, 24, 64

# Number of documents per query in the regression: the best ones by exact similarity.
_BEST = 100

# Weight of the default coefficients, in sampled documents: a few documents hardly change them.
_PRIOR = 4.0

# A term that spreads less than this share of the targets' spread is nearly the same for all sampled
# documents: it could contribute only with a huge coefficient, which would be wrong for other documents.
_LEAST_SPREAD = 0.1

# A child of the configuration's seed.
_PICKING = 0xC4

#: How blocks are scaled: "length" makes both sides of each block equally long; "range" gives all blocks of
#: documents the same largest entry, for vectors that are rounded with one step size.
Balance = Literal["length", "range"]

_Terms = list["NDArray[np.floating] | None"]


class Sketches(NamedTuple):
    """The sketch beside the blocks.

    Parameters
    ----------
    documents, queries : callable
        Return float32 (n, L).
    scale : float
        Inner products of sketches approximate this times Chamfer.
    """

    documents: Callable[[MultiVectors], NDArray[np.float32]]
    queries: Callable[[MultiVectors], NDArray[np.float32]]
    scale: float


def similarities_of(
    queries: MultiVectors, documents: MultiVectors, threads: int | None = None
) -> NDArray[np.float32]:
    """Return the exact Chamfer similarities of queries with documents, float32 (n, m)."""
    floats, halves = as_kernel_arrays(documents)
    packed = pack_columns(np.asarray(queries.tokens, np.float32)).reshape(-1)
    out = np.empty((len(documents), len(queries)), np.float32)

    def work(start: int, stop: int) -> None:
        positions = np.arange(start, stop)
        score_documents(
            floats, halves, documents.offsets, positions, packed, queries.offsets, out[start:stop]
        )

    run_in_ranges(work, split_by_weight(documents.offsets, 8192, len(documents)), threads)
    return np.ascontiguousarray(out.T)


@one_blas_thread()
def calibrate(
    documents: MultiVectors,
    queries: MultiVectors | None,
    *,
    covariance: bool,
    sketches: Sketches | None,
    balance: Balance,
    seed: int,
    threads: int | None = None,
) -> MomentBlocks:
    """Fit the blocks; the result is bit-identical for any number of threads and cores.

    Parameters
    ----------
    documents : MultiVectors
        A sample; at most SAMPLE_DOCUMENTS of them are used, except for the directions.
    queries : MultiVectors, optional
        Queries to fit to.  If there are too few, windows of documents are added.
    covariance : bool
        Add a block of the second moment.
    sketches : Sketches, optional
        The sketch beside the blocks.
    balance : {"length", "range"}
    seed : int
    threads : int, optional
        Default: all usable cores.

    Returns
    -------
    MomentBlocks
    """
    dimension = documents.dimension
    size = covariance_directions(dimension, covariance)
    directions = None
    if 0 < size < dimension:
        directions = principal_directions(documents, size, seed, threads)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_PICKING,)))
    documents = _some(documents, SAMPLE_DOCUMENTS, rng)
    moments = np.zeros((len(documents), moment_dimension(dimension, covariance)), np.float32)
    writer = BlockWriter(default_blocks(dimension, covariance, None, directions))
    writer.write_moments((*as_kernel_arrays(documents), documents.offsets), 0, len(documents), 0, moments)
    defaults = default_blocks(
        dimension, covariance, _mean_covariance(moments, documents.lengths, size), directions
    )
    if len(documents) < 2:
        return defaults
    texts, own = _queries_and_windows(documents, queries, rng)
    similarities = similarities_of(texts, documents, threads)
    query_blocks = np.zeros((len(texts), moments.shape[1]), np.float32)
    BlockWriter(defaults).write_queries(
        (*as_kernel_arrays(texts), texts.offsets), 0, len(texts), 0, query_blocks
    )
    blocks = _Blocks(moments, query_blocks, documents.lengths, dimension)
    sketched = None if sketches is None else (sketches.documents(documents), sketches.queries(texts))
    terms = blocks.terms(threads)
    if sketches is not None and sketched is not None:
        terms[0] = product(sketched[1], np.ascontiguousarray(sketched[0].T), threads) / sketches.scale
    coefficients = _least_squares(terms, similarities, own)
    sides = (np.zeros((1, 0), np.float32), np.zeros((1, 0), np.float32))
    if sketches is not None and sketched is not None:
        sides = (sketched[0] * np.float32(coefficients[0] / sketches.scale), sketched[1])
    units, offset = blocks.balanced(coefficients, sides, balance)
    return MomentBlocks(coefficients, units, offset, defaults.metric, defaults.directions)


def _some(texts: MultiVectors, most: int, rng: np.random.Generator) -> MultiVectors:
    filled = np.flatnonzero(texts.lengths > 0)
    if len(filled) > most:
        filled = np.sort(rng.choice(filled, most, replace=False))
    return texts if len(filled) == len(texts) else texts[filled]


def _queries_and_windows(
    documents: MultiVectors, queries: MultiVectors | None, rng: np.random.Generator
) -> tuple[MultiVectors, NDArray[np.int64]]:
    """Return queries and windows, and each window's own document (-1 for a query)."""
    texts = [] if queries is None else [text for text in queries if len(text)]
    length = min(_LONGEST, max(1, round(float(np.mean([len(q) for q in texts]))))) if texts else _LENGTH
    if len(texts) > _QUERIES:
        texts = [texts[i] for i in np.sort(rng.choice(len(texts), _QUERIES, replace=False))]
    own = np.full(len(texts), -1)
    missing = min(_QUERIES - len(texts), len(documents))
    if missing:
        windows, sources = pseudo_queries(documents, missing, length, rng)
        texts += [windows[i] for i in range(len(windows))]
        own = np.concatenate([own, sources])
    arrays = [np.asarray(text, np.float32) for text in texts]
    return MultiVectors.from_arrays(arrays, dimension=documents.dimension), own


def _mean_covariance(
    moments: NDArray[np.float32], lengths: NDArray[np.int64], size: int
) -> NDArray[np.float32]:
    """Return the mean of the documents' covariances, float32 (r, r)."""
    metric = np.zeros((size, size), np.float32)
    if size and len(moments):
        # A document with one token has a block of zeros, because its covariance is zero.
        triangles = moments[:, : size * (size + 1) // 2]
        unscaled = triangles / np.sqrt(2 * np.log(np.maximum(lengths, 2)))[:, np.newaxis]
        mean = unscaled.mean(axis=0, dtype=np.float64)
        rows, columns = np.triu_indices(size)
        mean[rows != columns] /= np.sqrt(2)
        metric[rows, columns] = mean
        metric[columns, rows] = mean
    return metric


class _Blocks:
    """The moments of documents and of queries, split into blocks."""

    def __init__(
        self,
        moments: NDArray[np.float32],
        queries: NDArray[np.float32],
        lengths: NDArray[np.int64],
        dimension: int,
    ) -> None:
        size = moments.shape[1] - dimension - 1
        self.triangles, self.means = moments[:, :size], moments[:, size:-1]
        self.query_triangles, self.sums, self.counts = queries[:, :size], queries[:, size:-1], queries[:, -1]
        square = np.square(self.means, dtype=np.float64).sum(axis=1)
        norms = np.sqrt(square)
        self.inverse = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        self.bias_terms = np.stack([norms, square, np.log(np.maximum(lengths, 1))])

    def terms(self, threads: int | None) -> _Terms:
        """Return the factor of each coefficient, (queries, documents); None for a missing block."""
        means = product(self.sums, np.ascontiguousarray(self.means.T), threads)
        triangles = None
        if self.triangles.shape[1]:
            triangles = product(
                np.ascontiguousarray(self.query_triangles), np.ascontiguousarray(self.triangles.T), threads
            )
        bias = [self.counts[:, np.newaxis] * term for term in self.bias_terms]
        return [None, triangles, means, means * self.inverse, *bias]

    def balanced(
        self,
        coefficients: NDArray[np.float64],
        sketched: tuple[NDArray[np.float32], NDArray[np.float32]],
        balance: Balance,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the blocks' units and the mean of the documents' moment blocks."""
        along = coefficients[2] + coefficients[3] * self.inverse
        bias = coefficients[4:] @ self.bias_terms
        pairs: list[tuple[NDArray[np.floating], NDArray[np.floating]]] = [
            (coefficients[1] * self.triangles, self.query_triangles),
            (along[:, np.newaxis] * self.means, self.sums),
            (bias[:, np.newaxis], self.counts[:, np.newaxis]),
        ]
        offset = np.concatenate([block.mean(axis=0, dtype=np.float64) for block, _ in pairs])
        pairs = [sketched, *((block - block.mean(axis=0), query) for block, query in pairs)]
        if balance == "length":
            sizes = [(_length(block), _length(query)) for block, query in pairs]
            units = [np.sqrt(query / block) if block > 0 and query > 0 else 1.0 for block, query in sizes]
        else:
            peaks = [float(np.abs(block).max(initial=0)) for block, _ in pairs]
            units = [1 / peak if peak > 0 else 1.0 for peak in peaks]
        return np.array(units, np.float32), offset.astype(np.float32)


def _length(rows: NDArray[np.floating]) -> float:
    """Return the root of the rows' mean square length."""
    return float(np.sqrt(np.square(rows, dtype=np.float64).sum() / max(1, len(rows))))


def _least_squares(
    terms: _Terms, similarities: NDArray[np.float32], own: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the coefficients; those of missing terms keep their defaults."""
    present = [i for i, term in enumerate(terms) if term is not None]
    factors = [term for term in terms if term is not None]
    count = similarities.shape[1]
    rows, targets = [], []
    for query, document in enumerate(own.tolist()):
        best = np.argsort(-similarities[query], kind="stable")
        best = best[best != document][:_BEST]
        columns = np.stack([np.asarray(term[query, best], np.float64) for term in factors], axis=1)
        target = similarities[query, best].astype(np.float64)
        rows.append(columns - columns.mean(axis=0))
        targets.append(target - target.mean())
    matrix, target = np.concatenate(rows), np.concatenate(targets)
    coefficients = np.array(DEFAULT_COEFFICIENTS)
    spread = np.sqrt(np.square(matrix).mean(axis=0))
    floor = _LEAST_SPREAD * float(np.sqrt(np.square(target).mean()))
    spread = np.maximum(spread, floor if floor > 0 else 1.0)
    scaled = matrix / spread
    gram = scaled.T @ scaled / len(scaled) + np.eye(len(present)) * (_PRIOR / count)
    residual = target - matrix @ coefficients[present]
    coefficients[present] += np.linalg.solve(gram, scaled.T @ residual / len(scaled)) / spread
    return coefficients
