"""Coefficients of a vector's blocks, fitted to exact Chamfer by least squares.

Windows of sampled documents serve as queries; a window's own document is excluded.  The regression predicts the
exact Chamfer of each query's best documents, because a search has to separate these.  The similarities are centered per
query, because a constant per query does not change the ranking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..data.batches import pseudo_queries
from ..data.multivectors import MultiVectors
from ..kernels.chamfer import score_documents
from ..kernels.tile import pack_columns
from .base import KernelArrays, Side, random_stream, run_tasks
from .matmul import one_blas_thread, product
from .moment_blocks import (
    DEFAULT_COEFFICIENTS,
    MomentBlocks,
    covariance_directions,
    default_blocks,
    moment_dimension,
    principal_directions,
)

#: Largest number of documents whose exact similarities are computed.
SAMPLE_DOCUMENTS = 512

# Number of queries and windows, number of tokens in a window if no queries are given, and its maximum otherwise.
_QUERIES, _LENGTH, _LONGEST = 100, 24, 64

# Number of documents per query in the regression: the best ones by exact similarity.
_BEST = 100

# Weight of the default coefficients, in sampled documents: a few documents hardly change them.
_PRIOR = 4.0

# A term whose spread is below this share of the targets' spread is nearly the same for all sampled
# documents.  It could contribute only with a huge coefficient, which would be wrong for other documents.
_LEAST_SPREAD = 0.1

# Spawn key of the random stream that picks documents, queries and windows.
_PICKING = 0xC4

#: How blocks are scaled: "length" makes both sides of each block equally long; "range" gives all blocks of
#: documents the same largest entry, for vectors that are rounded with one step size.
Balance = Literal["length", "range"]


@one_blas_thread()
def fit_blocks(
    documents: MultiVectors,
    queries: MultiVectors | None,
    *,
    covariance: bool,
    balance: Balance,
    seed: int,
    sketches: Callable[[MultiVectors, Side], NDArray[np.float32]] | None = None,
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
    sketches : callable, optional
        Returns the vectors beside the blocks, whose products approximate Chamfer.
    """
    dimension = documents.dimension
    size = covariance_directions(dimension, covariance)
    directions = None
    if 0 < size < dimension:
        directions = principal_directions(documents, size, seed, threads)
    rng = random_stream(seed, _PICKING)
    filled = np.flatnonzero(documents.lengths)
    if len(filled) > SAMPLE_DOCUMENTS:
        filled = np.sort(rng.choice(filled, SAMPLE_DOCUMENTS, replace=False))
    documents = documents[filled]
    columns = moment_dimension(dimension, covariance)
    defaults = default_blocks(dimension, covariance, directions)
    moments = np.empty((len(documents), columns), np.float32)
    run_tasks(partial(defaults.write_moments, 0), documents, moments, threads)
    defaults = replace(defaults, metric=_mean_covariance(moments, documents.lengths, size))
    if len(documents) < 2:
        return defaults
    texts, own = _queries_and_windows(documents, queries, rng)
    query_blocks = np.empty((len(texts), columns), np.float32)
    run_tasks(partial(defaults.write, "queries", 0), texts, query_blocks, threads)

    # Each block as a pair of its documents' side and its queries' side.
    triangle = columns - dimension - 1
    means, sums, counts = moments[:, triangle:-1], query_blocks[:, triangle:-1], query_blocks[:, -1:]
    square = np.square(means, dtype=np.float64).sum(axis=1)
    norms = np.sqrt(square)
    inverse = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    bias_terms = np.stack([norms, square, np.log(documents.lengths)])
    sketch = tuple(np.zeros((len(side), 0), np.float32) for side in (documents, texts))
    if sketches is not None:
        sketch = sketches(documents, "documents"), sketches(texts, "queries")
    covariances = moments[:, :triangle], query_blocks[:, :triangle]
    along = product(sums, means.T, threads)
    # The factor of each coefficient, (queries, documents): zeros for a missing block.
    terms = [product(block[1], block[0].T, threads) for block in (sketch, covariances)]
    terms += [along, along * inverse, *(counts * term for term in bias_terms)]
    coefficients = _least_squares(terms, _similarities(texts, documents, threads), own)
    pairs: list[tuple[NDArray[np.floating], NDArray[np.floating]]] = [
        (coefficients[1] * covariances[0], covariances[1]),
        ((coefficients[2] + coefficients[3] * inverse)[:, np.newaxis] * means, sums),
        ((coefficients[4:] @ bias_terms)[:, np.newaxis], counts),
    ]
    offset = np.concatenate([block.mean(axis=0, dtype=np.float64) for block, _ in pairs])
    pairs = [(block - block.mean(axis=0), query) for block, query in pairs]
    units = [
        _unit(block, query, balance) for block, query in [(coefficients[0] * sketch[0], sketch[1]), *pairs]
    ]
    return replace(
        defaults,
        coefficients=coefficients,
        units=np.array(units, np.float32),
        offset=offset.astype(np.float32),
    )


def _similarities(queries: MultiVectors, documents: MultiVectors, threads: int | None) -> NDArray[np.float32]:
    """Return the exact Chamfer similarities, float32 (n_queries, n_documents)."""
    packed = pack_columns(np.asarray(queries.tokens, np.float32)).reshape(-1)

    def score(arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]) -> None:
        score_documents(*arrays, np.arange(start, stop), packed, queries.offsets, out)

    out = np.empty((len(documents), len(queries)), np.float32)
    return np.ascontiguousarray(run_tasks(score, documents, out, threads).T)


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
        texts += list(windows)
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


def _unit(block: NDArray[np.floating], query: NDArray[np.floating], balance: Balance) -> float:
    """Return the unit of a block with these two sides."""
    if balance == "range":
        peak = float(np.abs(block).max(initial=0))
        return 1 / peak if peak > 0 else 1.0
    # Root mean square lengths of the rows.
    lengths = [float(np.sqrt(np.square(side, dtype=np.float64).sum() / len(side))) for side in (block, query)]
    return float(np.sqrt(lengths[1] / lengths[0])) if min(lengths) > 0 else 1.0


def _least_squares(
    terms: list[NDArray[np.floating]], similarities: NDArray[np.float32], own: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the coefficients of the terms; a term of zeros keeps its default."""
    rows, targets = [], []
    for query, document in enumerate(own.tolist()):
        best = np.argsort(-similarities[query], kind="stable")
        best = best[best != document][:_BEST]
        columns = np.stack([np.asarray(term[query, best], np.float64) for term in terms], axis=1)
        target = similarities[query, best].astype(np.float64)
        rows.append(columns - columns.mean(axis=0))
        targets.append(target - target.mean())
    matrix, target = np.concatenate(rows), np.concatenate(targets)
    defaults = np.array(DEFAULT_COEFFICIENTS)
    spread = np.sqrt(np.square(matrix).mean(axis=0))
    floor = _LEAST_SPREAD * float(np.sqrt(np.square(target).mean()))
    spread = np.maximum(spread, floor if floor > 0 else 1.0)
    scaled = matrix / spread
    gram = scaled.T @ scaled / len(scaled) + np.eye(len(terms)) * (_PRIOR / similarities.shape[1])
    residual = target - matrix @ defaults
    change: NDArray[np.float64] = np.linalg.solve(gram, scaled.T @ residual / len(scaled)) / spread
    return defaults + change
