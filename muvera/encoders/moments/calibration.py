"""Calibration: the coefficients of a vector's blocks, by least squares on pseudo-queries.

Windows of sampled documents stand in for queries where there are none, with their own document left
out.  The regression explains exact Chamfer among the documents that are best for a query, centered a
query: what separates those is what a search has to find, and a constant a query changes no ranking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors, as_kernel_arrays
from ...data.sampling import pseudo_queries
from ...kernels.moments import document_moments, query_moments
from ...numerics.matmul import one_blas_thread, product
from ..fde.compact_maps import similarities_of
from .blocks import DEFAULT_COEFFICIENTS, TERMS, MomentBlocks, default_blocks, moment_dimension

__all__ = ["SAMPLE_DOCUMENTS", "Sketches", "calibrate"]

#: Documents that exact similarities are computed with, at most.
SAMPLE_DOCUMENTS = 512

# Pseudo-queries, and their tokens where no queries tell how long they are.
_QUERIES, _LENGTH, _LONGEST = 100, 24, 64

# Documents that a query's regression is about: the best ones by exact similarity.
_BEST = 100

# Weight of the default coefficients, in sampled documents: so few leave them nearly as they are.
_PRIOR = 4.0

# Terms that spread less than this share of the targets' spread are nearly the same for all sampled
# documents: they could explain something only by a coefficient that is wild for other documents.
_LEAST_SPREAD = 0.1

# A child of the configuration's seed.
_PICKING = 0xC4

#: How blocks are brought to one scale: "length", both sides of each block equally long; "range", all
#: blocks of documents with the same greatest entry, for what is to be rounded with one step.
Balance = Literal["length", "range"]


class Sketches(NamedTuple):
    """How a sketch of texts is made.

    Parameters
    ----------
    documents, queries : callable
        Return float32 (n, L).
    scale : float
        Their inner products are so many times Chamfer's.
    """

    documents: Callable[[MultiVectors], NDArray[np.float32]]
    queries: Callable[[MultiVectors], NDArray[np.float32]]
    scale: float


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
    """Learn the blocks; the same bits on any number of threads and cores.

    Parameters
    ----------
    documents : MultiVectors
        A sample; of more than SAMPLE_DOCUMENTS so many are drawn.
    queries : MultiVectors, optional
        Queries to learn from; windows of documents take the places of those that are wanting.
    covariance : bool
        Whether there is a block of the second moment.
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
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_PICKING,)))
    documents = _some(documents, SAMPLE_DOCUMENTS, rng)
    moments, metric = _moments_of(documents, covariance)
    if len(documents) < 2:
        return default_blocks(dimension, covariance, metric)
    texts, own = _texts_to_learn_from(documents, queries, rng)
    similarities = similarities_of(texts, documents, threads)
    with_metric = default_blocks(dimension, covariance, metric)
    size = moment_dimension(dimension, covariance)
    asked = np.zeros((len(texts), size), np.float32)
    query_moments(
        *as_kernel_arrays(texts), texts.offsets, 0, len(texts), 0, with_metric.packed_metric(),
        with_metric.units[1:], asked,
    )  # fmt: skip
    blocks = _Blocks(moments, asked, documents.lengths, covariance, dimension)
    sketched = None if sketches is None else (sketches.documents(documents), sketches.queries(texts))
    terms = blocks.products(threads)
    if sketched is not None and sketches is not None:
        terms[0] = product(sketched[1], np.ascontiguousarray(sketched[0].T), threads) / sketches.scale
    coefficients = _least_squares(terms, similarities, own)
    units, offset = blocks.balanced(coefficients, sketched, sketches, balance)
    return MomentBlocks(coefficients, units, offset, metric)


def _some(texts: MultiVectors, most: int, rng: np.random.Generator) -> MultiVectors:
    filled = np.flatnonzero(texts.lengths > 0)
    if len(filled) > most:
        filled = np.sort(rng.choice(filled, most, replace=False))
    return texts if len(filled) == len(texts) else texts[filled]


def _texts_to_learn_from(
    documents: MultiVectors, queries: MultiVectors | None, rng: np.random.Generator
) -> tuple[MultiVectors, NDArray[np.int64]]:
    """Return queries and windows, and each one's own document, -1 for none."""
    given = [] if queries is None else [text for text in queries if len(text)]
    length = min(_LONGEST, max(1, round(float(np.mean([len(q) for q in given]))))) if given else _LENGTH
    if len(given) > _QUERIES:
        given = [given[i] for i in np.sort(rng.choice(len(given), _QUERIES, replace=False))]
    own = np.full(len(given), -1)
    wanting = min(_QUERIES - len(given), len(documents))
    if wanting:
        windows, sources = pseudo_queries(documents, wanting, length, rng)
        given += [windows[i] for i in range(len(windows))]
        own = np.concatenate([own, sources])
    texts = MultiVectors.from_arrays(
        [np.asarray(text, np.float32) for text in given], dimension=documents.dimension
    )
    return texts, own


def _moments_of(documents: MultiVectors, covariance: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the documents' moments and the mean of their covariances."""
    dimension = documents.dimension
    out = np.zeros((len(documents), moment_dimension(dimension, covariance)), np.float32)
    document_moments(*as_kernel_arrays(documents), documents.offsets, 0, len(documents), 0, covariance, out)
    metric = np.zeros((dimension, dimension) if covariance else (0, 0), np.float32)
    if covariance and len(documents):
        counts = np.maximum(documents.lengths, 2)
        size = out.shape[1] - dimension - 1
        # Of documents with one token the block is zero, and so is their covariance.
        unscaled = out[:, :size] / np.sqrt(2 * np.log(counts))[:, np.newaxis]
        mean = unscaled.mean(axis=0, dtype=np.float64)
        rows, columns = np.triu_indices(dimension)
        mean[rows != columns] /= np.sqrt(2)
        metric[rows, columns] = mean
        metric[columns, rows] = mean
    return out, metric


class _Blocks:
    """The moments of documents and of queries, cut into blocks."""

    def __init__(
        self,
        moments: NDArray[np.float32],
        asked: NDArray[np.float32],
        lengths: NDArray[np.int64],
        covariance: bool,
        dimension: int,
    ) -> None:
        size = moments.shape[1] - dimension - 1
        self.triangles = moments[:, :size]
        self.means = moments[:, size:-1]
        self.asked_triangles, self.sums, self.counts = asked[:, :size], asked[:, size:-1], asked[:, -1]
        square = np.square(self.means, dtype=np.float64).sum(axis=1)
        norms = np.sqrt(square)
        self.inverse = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        self.bias_terms = np.stack([norms, square, np.log(np.maximum(lengths, 1))])
        self.covariance = covariance

    def products(self, threads: int | None) -> list[NDArray[np.floating] | None]:
        """Return what each coefficient multiplies, (queries, documents); None for terms without a block."""
        means = product(self.sums, np.ascontiguousarray(self.means.T), threads)
        triangles = None
        if self.covariance:
            triangles = product(
                np.ascontiguousarray(self.asked_triangles), np.ascontiguousarray(self.triangles.T), threads
            )
        bias = [self.counts[:, np.newaxis] * term for term in self.bias_terms]
        return [None, triangles, means, means * self.inverse, *bias]

    def balanced(
        self,
        coefficients: NDArray[np.float64],
        sketched: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
        sketches: Sketches | None,
        balance: Balance,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the blocks' units and the mean of the documents' moment blocks."""
        along = coefficients[2] + coefficients[3] * self.inverse
        bias = coefficients[4:] @ self.bias_terms
        pairs: list[tuple[NDArray[np.floating], NDArray[np.floating]]] = [
            (coefficients[1] * self.triangles, self.asked_triangles),
            (along[:, np.newaxis] * self.means, self.sums),
            (bias[:, np.newaxis], self.counts[:, np.newaxis]),
        ]
        offset = np.concatenate([block.mean(axis=0, dtype=np.float64) for block, _ in pairs])
        pairs = [(block - block.mean(axis=0), query) for block, query in pairs]
        if sketched is not None and sketches is not None:
            pairs.insert(0, (sketched[0] * np.float32(coefficients[0] / sketches.scale), sketched[1]))
        else:
            pairs.insert(0, (np.zeros((1, 0)), np.zeros((1, 0))))
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
    terms: list[NDArray[np.floating] | None], similarities: NDArray[np.float32], own: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the coefficients; those of missing terms stay as the defaults have them."""
    present = [i for i, term in enumerate(terms) if term is not None]
    count = similarities.shape[1]
    rows, targets = [], []
    for query, document in enumerate(own.tolist()):
        best = np.argsort(-similarities[query], kind="stable")
        best = best[best != document][:_BEST]
        columns = np.stack([np.asarray(terms[i][query, best], np.float64) for i in present], axis=1)  # type: ignore[index]
        wanted = similarities[query, best].astype(np.float64)
        rows.append(columns - columns.mean(axis=0))
        targets.append(wanted - wanted.mean())
    matrix, wanted = np.concatenate(rows), np.concatenate(targets)
    coefficients = np.array(DEFAULT_COEFFICIENTS)
    spread = np.sqrt(np.square(matrix).mean(axis=0))
    floor = _LEAST_SPREAD * float(np.sqrt(np.square(wanted).mean()))
    spread = np.maximum(spread, floor if floor > 0 else 1.0)
    scaled = matrix / spread
    gram = scaled.T @ scaled / len(scaled) + np.eye(len(present)) * (_PRIOR / count)
    left = wanted - matrix @ coefficients[present]
    coefficients[present] += np.linalg.solve(gram, scaled.T @ left / len(scaled)) / spread
    assert len(coefficients) == len(TERMS)
    return coefficients
