"""MomentBlocks: a document's mean token, a bias and its covariance, as columns of a vector.

The coefficients of the blocks are fitted to exact Chamfer by least squares; see docs/how-it-works.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..data.batches import pseudo_queries
from ..data.multivectors import MultiVectors
from ..kernels.chamfer import score_documents
from ..kernels.moments import document_moments, first_moments, query_moments, weigh_moments
from ..kernels.rows import pack_map
from ..kernels.tile import LANES, pack_columns
from ..utils.random_streams import random_stream
from .base import EncoderArrays, KernelArrays, Shapes, Side, run_tasks
from .matmul import gram, leading_eigenvectors, one_blas_thread, product

#: Coefficients without documents to fit them to: of the sketch (its weight on most models), the covariance, the mean m,
#: m / |m|, and for the bias |m|, |m|**2 and the logarithm of the number of tokens.
DEFAULT_COEFFICIENTS = (0.5, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0)

#: Largest number of directions of the covariance; tokens of more columns are turned into their principal directions.
MAX_DIRECTIONS = 128

# Maximum number of tokens that determine the directions, and maximum bytes of their deviations.
_DIRECTION_TOKENS, _DIRECTION_BYTES = 16384, 128 << 20

#: Largest number of documents whose exact similarities are computed.
SAMPLE_DOCUMENTS = 512

# Number of queries and windows, number of tokens in a window if no queries are given, and its maximum otherwise.
_QUERIES, _LENGTH, _LONGEST = 100, 24, 64

# Number of documents per query in the regression: the best ones, because a search has to separate these.
_BEST = 100

# Weight of the default coefficients, in sampled documents: a few documents hardly change them.
_PRIOR = 4.0

# A term whose spread is below this share of the targets' spread is nearly the same for all sampled
# documents.  It could contribute only with a huge coefficient, which would be wrong for other documents.
_LEAST_SPREAD = 0.1

# Children of the configuration's seed; the first picks documents, queries and windows.
_PICKING, _DIRECTIONS = 0xC4, 0xC5


def covariance_directions(dimension: int, covariance: bool) -> int:
    """Return r, the directions of the covariance; 0 without one."""
    return min(dimension, MAX_DIRECTIONS) if covariance else 0


def moment_dimension(dimension: int, covariance: bool) -> int:
    """Return the floats of the blocks: covariance (if any), mean and bias."""
    directions = covariance_directions(dimension, covariance)
    return directions * (directions + 1) // 2 + dimension + 1


@dataclass(frozen=True)
class MomentBlocks(EncoderArrays):
    """Coefficients and arrays of the blocks, with r directions of covariance and w columns in total."""

    #: Of the terms of DEFAULT_COEFFICIENTS.
    coefficients: NDArray[np.float64]
    #: Documents' blocks (sketch, covariance, mean, bias) are multiplied, queries' blocks divided by them.
    #: Both sides become about equally long, which graphs and rounding need.
    units: NDArray[np.float32]
    #: The sampled documents' mean blocks (w,), which are subtracted; this does not change the ranking.
    offset: NDArray[np.float32]
    #: The documents' mean covariance (r, r); (0, 0) without covariance.
    metric: NDArray[np.float32]
    #: Orthonormal rows (r, d); (0, 0) if r is d or there is no covariance.
    directions: NDArray[np.float32]

    prefix: ClassVar[str] = "moments_"

    def _shapes(self, config: Any) -> Shapes:
        size, dimension = covariance_directions(config.dimension, config.covariance), config.dimension
        directions = (size, dimension) if 0 < size < dimension else (0, 0)
        columns = moment_dimension(dimension, config.covariance)
        return (len(DEFAULT_COEFFICIENTS),), (4,), (columns,), (size, size), directions

    def require_shape(self, config: Any) -> None:
        """Raise ValueError if the blocks belong to another configuration, or a unit is not positive."""
        super().require_shape(config)
        if self.units.min() <= 0:
            raise ValueError(
                f"The encoder's units must be positive, got {self.units.min()}. Restore the encoder from a copy."
            )

    @cached_property
    def document_arguments(self) -> tuple[NDArray[np.float32], int]:
        """Arguments of the kernel for documents: the packed directions and their number."""
        if not self.directions.size:
            return np.empty(0, np.float32), len(self.metric)
        padding = -self.directions.shape[1] % LANES
        return pack_map(np.pad(self.directions.T, ((0, padding), (0, 0)))), len(self.metric)

    @cached_property
    def query_arguments(self) -> tuple[Any, ...]:
        """Arguments of the kernels for queries: those for documents, the packed metric, the units."""
        padding = -len(self.metric) % LANES
        metric = pack_columns(np.pad(self.metric, (0, padding))).reshape(-1)
        return (*self.document_arguments, metric, self.units)

    def write_moments(
        self, at: int, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write covariances and means of documents start..stop to the columns of `out` from `at` on."""
        document_moments(*arrays, start, stop, at, *self.document_arguments, out)

    def write(
        self, side: Side, at: int, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write the blocks of texts start..stop to the columns of `out` from `at` on."""
        if side == "queries":
            query_moments(*arrays, start, stop, at, *self.query_arguments, out)
            return
        self.write_moments(at, arrays, start, stop, out)
        size = len(self.metric)
        weigh_moments(
            arrays[2], start, stop, at, size * (size + 1) // 2, self.coefficients[1:], self.units[1:],
            self.offset, out,
        )  # fmt: skip


def default_blocks(config: Any, directions: NDArray[np.float32] | None = None) -> MomentBlocks:
    """Return blocks with the :data:`DEFAULT_COEFFICIENTS`, for all columns if `directions` is None."""
    return MomentBlocks(
        np.array(DEFAULT_COEFFICIENTS),
        np.ones(4, np.float32),
        np.zeros(moment_dimension(config.dimension, config.covariance), np.float32),
        np.eye(covariance_directions(config.dimension, config.covariance), dtype=np.float32),
        np.empty((0, 0), np.float32) if directions is None else directions,
    )


def mean_tokens(texts: MultiVectors, threads: int | None = None) -> NDArray[np.float32]:
    """Return the mean token of each text, float32 (n, d)."""

    def write(arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]) -> None:
        first_moments(*arrays, start, stop, 0, True, out)

    return run_tasks(write, texts, texts.dimension, threads)


def principal_directions(
    documents: MultiVectors, count: int, seed: int, threads: int | None = None
) -> NDArray[np.float32]:
    """Return the `count` leading directions of tokens around their own document's mean, orthonormal float32 (r, d)."""
    tokens = min(documents.num_tokens, _DIRECTION_TOKENS, _DIRECTION_BYTES // (4 * documents.dimension))
    stream = random_stream(seed, _DIRECTIONS)
    positions = np.sort(stream.choice(documents.num_tokens, tokens, replace=False))
    owners = np.searchsorted(documents.offsets, positions, side="right") - 1
    means = mean_tokens(documents, threads)
    deviations = np.asarray(documents.tokens[positions], np.float32) - means[owners]
    covariance = gram(deviations.T, threads) / np.float32(max(1, tokens))
    start = random_stream(seed, _DIRECTIONS, 1)
    axes = leading_eigenvectors(covariance, count, start, threads)[1]
    # A random rotation gives all entries of a covariance about the same range, because they are rounded with one step.
    turn = np.linalg.qr(stream.standard_normal((axes.shape[1], axes.shape[1])))[0]
    return np.ascontiguousarray((axes @ turn.astype(np.float32)).T)


@one_blas_thread()
def fit_blocks(
    documents: MultiVectors,
    queries: MultiVectors,
    config: Any,
    threads: int | None,
    *,
    rounded: bool = False,
    sketches: Callable[[MultiVectors, Side], NDArray[np.float32]] | None = None,
) -> MomentBlocks:
    """Fit the blocks to documents that all have tokens, and to queries or windows of the documents.

    `rounded` gives all blocks of documents the same largest entry, for rounding with one step size.  `sketches`
    returns the vectors beside the blocks, whose products approximate Chamfer.
    """
    dimension, size = config.dimension, covariance_directions(config.dimension, config.covariance)
    directions = None
    if 0 < size < dimension:
        directions = principal_directions(documents, size, config.seed, threads)
    rng = random_stream(config.seed, _PICKING)
    if len(documents) > SAMPLE_DOCUMENTS:
        documents = documents[np.sort(rng.choice(len(documents), SAMPLE_DOCUMENTS, replace=False))]
    defaults = default_blocks(config, directions)
    columns = len(defaults.offset)
    moments = run_tasks(partial(defaults.write_moments, 0), documents, columns, threads)
    triangle = columns - dimension - 1
    defaults = replace(defaults, metric=_mean_covariance(moments[:, :triangle], documents.lengths, size))
    if len(documents) < 2:
        return defaults
    texts, own = _queries_and_windows(documents, queries, rng)
    query_blocks = run_tasks(partial(defaults.write, "queries", 0), texts, columns, threads)

    # Each block as a pair of its documents' side and its queries' side.
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
    units = [_unit(*sides, rounded) for sides in [(coefficients[0] * sketch[0], sketch[1]), *pairs]]
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

    return np.ascontiguousarray(run_tasks(score, documents, len(queries), threads).T)


def _queries_and_windows(
    documents: MultiVectors, queries: MultiVectors, rng: np.random.Generator
) -> tuple[MultiVectors, NDArray[np.int64]]:
    """Return queries and windows, and each window's own document (-1 for a query)."""
    texts = [text for text in queries if len(text)]
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
    triangles: NDArray[np.float32], lengths: NDArray[np.int64], size: int
) -> NDArray[np.float32]:
    """Return the mean of the documents' covariances, float32 (r, r); that of one token is zero."""
    unscaled = triangles / np.sqrt(2 * np.log(np.maximum(lengths, 2)))[:, np.newaxis]
    mean = unscaled.mean(axis=0, dtype=np.float64)
    rows, columns = np.triu_indices(size)
    mean[rows != columns] /= np.sqrt(2)
    metric = np.empty((size, size), np.float32)
    metric[rows, columns] = metric[columns, rows] = mean
    return metric


def _unit(block: NDArray[np.floating], query: NDArray[np.floating], rounded: bool) -> float:
    """Return the factor of the documents' side `block`; queries are divided by it."""
    if rounded:
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
