"""Moments: a document's mean token, a bias and its covariance, as columns of a vector.

The part of Chamfer that the mean token explains is exact: sum_q <q, m>.  What is left
is how far the best token of a document lies above its mean.  For tokens that vary like
normal values, the largest of n lies about sqrt(2 log n) standard deviations above it,
and the variance along q is q' C q with the document's covariance C.  Linearized around
the documents' mean covariance C0:

    Chamfer(Q, X)  ~  sum_q <q, m> + sqrt(2 log n) <C, sum_q q q' / (2 sqrt(q' C0 q))>

The coefficients of these blocks are fitted to exact Chamfer by least squares.  See
docs/how-it-works.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.batches import pseudo_queries
from ..data.multivectors import MultiVectors
from ..kernels.chamfer import score_documents
from ..kernels.rows import pack_map
from ..kernels.tile import LANES, at_cache_line, pack_columns
from ..utils.random_streams import random_stream
from .arrays import EncoderArrays, Shapes, array
from .config import FDEConfig
from .linear_algebra import gram, leading_eigenvectors, one_blas_thread, product
from .moment_kernels import (
    LEAST_VARIANCE,
    Directions,
    DocumentWeights,
    QueryMetric,
    document_moments,
    first_moments,
    query_moments,
    weigh_moments,
)
from .steps import LearnedProjection
from .tasks import ArrayClasses, CellStep, FitSample, Rows, Side, Step, Texts, Tokens, Value, new_rows

#: Coefficients without documents to fit them to: of the cells (their weight on most
#: models), the covariance, the mean m, m / |m|, and for the bias |m|, |m|**2 and the
#: logarithm of the number of tokens.
DEFAULT_COEFFICIENTS = (0.5, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0)

# Maximum number of tokens that determine the directions, and maximum bytes of their
# deviations.
_DIRECTION_TOKENS, _DIRECTION_BYTES = 16384, 128 << 20

#: Largest number of documents whose exact similarities are computed.
SAMPLE_DOCUMENTS = 512

# Number of queries and windows in the regression.
_QUERIES = 100

# Tokens of a window if no queries are given, and their maximum otherwise.
_LENGTH, _LONGEST = 24, 64

# Number of documents per query in the regression: the best ones, because a search has
# to separate these.
_BEST = 100

# Weight of the default coefficients, in sampled documents: a few documents hardly
# change them.
_PRIOR = 4.0

# A term whose spread is below this share of the targets' spread is nearly the same for
# all sampled documents.  It could contribute only with a huge coefficient, which would
# be wrong for other documents.
_LEAST_SPREAD = 0.1

# Blocks with shorter rows are rounding errors, as of equal documents: their factor
# would overflow float32.
_LEAST_LENGTH = float(np.finfo(np.float32).tiny)

# Purposes among the random streams of a seed; the first picks documents, queries and
# windows.
_PICKING, _DIRECTIONS = 0xC4, 0xC5

#: How both sides share the length of a product.  "balanced": both are about equally
#: long, which graphs need.  "rounded": all blocks of documents have the same largest
#: entry, so that they can be rounded with one step.
Units = Literal["balanced", "rounded"]

#: A block of documents' vectors and its counterpart of queries' vectors.
Block = tuple[NDArray[np.floating], NDArray[np.floating]]


@dataclass(frozen=True)
class MomentBlocks(EncoderArrays):
    """Coefficients and arrays of the blocks: r directions, w columns in total."""

    #: Of the terms of DEFAULT_COEFFICIENTS, float64 (7,).
    coefficients: NDArray[np.float64] = array(np.float64)
    #: Documents' blocks (cells, covariance, mean, bias) are multiplied by these units,
    #: queries' blocks are divided, float32 (4,).
    units: NDArray[np.float32] = array(np.float32)
    #: The sampled documents' mean blocks (w,), which are subtracted; this does not
    #: change the ranking.
    offset: NDArray[np.float32] = array(np.float32)
    #: The documents' mean covariance (r, r); (0, 0) without covariance.
    metric: NDArray[np.float32] = array(np.float32)
    #: Orthonormal rows (r, d); (0, 0) if r is d or there is no covariance.
    directions: NDArray[np.float32] = array(np.float32)

    prefix = "moments_"

    def _shapes(self, config: FDEConfig) -> Shapes:
        size, dimension = config.num_directions, config.dimension
        directions = (size, dimension) if 0 < size < dimension else (0, 0)
        return (len(DEFAULT_COEFFICIENTS),), (4,), (config.moment_dimension,), (size, size), directions

    def require_shape(self, config: FDEConfig) -> None:
        """Raise ValueError for another configuration, or a unit below or at zero."""
        super().require_shape(config)
        if self.units.min() <= 0:
            raise ValueError(
                f"The encoder's units must be positive, got {self.units.min()}. Restore the encoder from "
                "a copy."
            )

    def cell_weight(self, side: Side) -> float:
        """Return the factor of one side's cells."""
        unit = float(self.units[0])
        return float(self.coefficients[0]) * unit if side == "documents" else 1 / unit

    @cached_property
    def packed_directions(self) -> Directions:
        """The directions for kernels."""
        if not self.directions.size:
            return Directions(np.empty(0, np.float32), len(self.metric))
        padding = -self.directions.shape[1] % LANES
        return Directions(pack_map(np.pad(self.directions.T, ((0, padding), (0, 0)))), len(self.metric))

    @cached_property
    def query_metric(self) -> QueryMetric:
        """The mean covariance and the units for kernels."""
        padding = -len(self.metric) % LANES
        below = np.tril(self.metric) + np.tril(self.metric, -1)
        return QueryMetric(at_cache_line(pack_columns(np.pad(below, (0, padding)))), self.units)

    def write_moments(self, at: int, tokens: Tokens, start: int, stop: int, out: Rows) -> None:
        """Write covariances and means of documents start..stop from column `at` on."""
        document_moments(tokens, start, stop, at, self.packed_directions, out)

    def write(self, side: Side, at: int, tokens: Tokens, start: int, stop: int, out: Rows) -> None:
        """Write the moments of texts start..stop from column `at` on."""
        if side == "queries":
            query_moments(tokens, start, stop, at, self.packed_directions, self.query_metric, out)
            return
        self.write_moments(at, tokens, start, stop, out)
        triangle = len(self.metric) * (len(self.metric) + 1) // 2
        weights = DocumentWeights(triangle, self.coefficients[1:], self.units[1:], self.offset)
        weigh_moments(tokens.offsets, start, stop, at, weights, out)

    def onnx(self, side: Side, texts: Texts) -> tuple[list[Value], Value]:
        """Return the covariances, an empty list without, and the other columns."""
        turned = texts.tokens @ self.directions.T if self.directions.size else texts.tokens
        if side == "queries":
            sums = (texts.sum() / self.units[2]).op("Concat", texts.counts / self.units[3], axis=1)
            return [self._squares(turned) / self.units[1]] if self.metric.size else [], sums
        size, weights = len(self.metric) * (len(self.metric) + 1) // 2, self.coefficients[1:]
        counts = texts.counts.op("Max", np.float32(1))
        mean, logarithm = texts.sum() / counts, counts.op("Log")
        square = (mean * mean).sum(1, keepdims=True)
        length = square.op("Sqrt")
        along = (length > 0.0).where(1.0 / length, np.float32(0)) * weights[2] + weights[1]
        bias = length * weights[3] + square * weights[4] + logarithm * weights[5]
        offset, units = self.offset, self.units
        means = ((mean * along - offset[size:-1]) * units[2]).op(
            "Concat", (bias - offset[-1]) * units[3], axis=1
        )
        if not size:
            return [], means
        rest = texts.centered(turned)
        scale = (logarithm * 2.0).op("Sqrt") / counts
        covariance = self._triangle(rest.transpose(0, 2, 1) @ rest) * (scale * weights[0])
        return [(covariance - offset[:size]) * units[1]], means

    def _squares(self, rows: Value) -> Value:
        """Return the triangles of ``sum_q q q' / (2 sqrt(q' C0 q))`` of rows."""
        variance = (rows @ self.metric * rows).sum(2, keepdims=True)
        weights = 0.5 / variance.op("Max", np.float32(LEAST_VARIANCE)).op("Sqrt")
        weights = (variance > LEAST_VARIANCE).where(weights, np.float32(0))
        return self._triangle((rows * weights).transpose(0, 2, 1) @ rows)

    def _triangle(self, matrix: Value) -> Value:
        """Return the upper triangles of symmetric matrices, as kernels write them."""
        rows, columns = np.triu_indices(len(self.metric))
        places = (rows * len(self.metric) + columns).astype(np.int32)
        root = np.where(rows == columns, 1, np.sqrt(2))
        return matrix.reshape(0, len(self.metric) ** 2).op("Gather", places, axis=1) * root


class MomentStep(Step):
    """The moments of one encoder, beside its cells."""

    before: CellStep | None
    blocks: MomentBlocks
    array_classes: ClassVar[ArrayClasses] = {"blocks": MomentBlocks}

    def fit(self, sample: FitSample) -> None:
        """Fit the blocks, unless a learned projection does it for its own units."""
        if not isinstance(self.config.projection, LearnedProjection):
            documents, queries, *_, threads = sample
            self.blocks = fit_blocks(documents, queries, self.config, threads, cells=self.before)

    @property
    def columns(self) -> int:
        """Floats of cells and moments."""
        cells = 0 if self.before is None else self.before.columns
        return cells + self.config.moment_dimension

    def write(self, side: Side, tokens: Tokens, start: int, stop: int, out: Rows) -> None:
        """Write cells and moments of texts start..stop side by side."""
        if self.before is not None:
            self.before.write(side, tokens, start, stop, out, self.blocks.cell_weight(side))
        self.blocks.write(side, self.columns - self.config.moment_dimension, tokens, start, stop, out)

    def onnx(self, side: Side, texts: Texts) -> Value:
        """Return cells and moments side by side."""
        covariances, means = self.blocks.onnx(side, texts)
        cells = self.before
        parts = [] if cells is None else [cells.onnx(side, texts, self.blocks.cell_weight(side))]
        parts += covariances
        return texts.graph.op("Concat", *parts, means, axis=1) if parts else means


def default_blocks(config: FDEConfig, directions: NDArray[np.float32] | None = None) -> MomentBlocks:
    """Return blocks with the :data:`DEFAULT_COEFFICIENTS`.

    Without `directions`, covariances have all columns.
    """
    return MomentBlocks(
        np.array(DEFAULT_COEFFICIENTS),
        np.ones(4, np.float32),
        np.zeros(config.moment_dimension, np.float32),
        np.eye(config.num_directions, dtype=np.float32),
        np.empty((0, 0), np.float32) if directions is None else directions,
    )


def mean_tokens(texts: MultiVectors, threads: int | None = None) -> NDArray[np.float32]:
    """Return the mean token of each text, float32 (n, d)."""

    def write(tokens: Tokens, start: int, stop: int, out: NDArray[np.float32]) -> None:
        first_moments(tokens, start, stop, 0, True, out)

    return new_rows(write, texts, texts.dimension, threads)


def principal_directions(
    documents: MultiVectors, count: int, seed: int, threads: int | None = None
) -> NDArray[np.float32]:
    """Return the leading directions of tokens around their document's mean.

    They are orthonormal rows, float32 (r, d); `count` is at most the dimension.
    """
    tokens = min(documents.num_tokens, _DIRECTION_TOKENS, _DIRECTION_BYTES // (4 * documents.dimension))
    stream = random_stream(seed, _DIRECTIONS)
    positions = np.sort(stream.choice(documents.num_tokens, tokens, replace=False))
    owners = np.searchsorted(documents.offsets, positions, side="right") - 1
    means = mean_tokens(documents, threads)
    deviations = np.asarray(documents.tokens[positions], np.float32) - means[owners]
    covariance = gram(deviations.T, threads) / np.float32(max(1, tokens))
    start = random_stream(seed, _DIRECTIONS, 1)
    axes = leading_eigenvectors(covariance, count, start, threads)[1]
    # A random rotation gives all entries of a covariance about the same range, because
    # they are rounded with one step.
    turn = np.linalg.qr(stream.standard_normal((axes.shape[1], axes.shape[1])))[0]
    return np.ascontiguousarray((axes @ turn.astype(np.float32)).T)


class Sample(NamedTuple):
    """Documents, and queries or windows of other documents, to fit coefficients to."""

    documents: MultiVectors
    queries: MultiVectors
    #: Each window's document, or -1 for a query, int64 (n_queries,).
    sources: NDArray[np.int64]


@one_blas_thread()
def fit_blocks(
    documents: MultiVectors,
    queries: MultiVectors,
    config: FDEConfig,
    threads: int | None,
    *,
    units: Units = "balanced",
    cells: CellStep | None = None,
) -> MomentBlocks:
    """Fit the blocks to documents, all of which have tokens.

    Without queries, windows of the documents' tokens are the queries.  `cells` stand
    beside the blocks; their products approximate Chamfer.  :data:`Units` describes
    `units`.  The result does not depend on `threads`.
    """
    defaults = default_blocks(config, _directions(documents, config, threads))
    rng = random_stream(config.seed, _PICKING)
    if len(documents) > SAMPLE_DOCUMENTS:
        documents = documents[np.sort(rng.choice(len(documents), SAMPLE_DOCUMENTS, replace=False))]
    columns, size = config.moment_dimension, config.num_directions
    moments = new_rows(partial(defaults.write_moments, 0), documents, columns, threads)
    triangle = size * (size + 1) // 2
    defaults = replace(defaults, metric=_mean_covariance(moments[:, :triangle], documents.lengths, size))
    if len(documents) < 2:
        return defaults
    sample = Sample(documents, *_queries_and_windows(documents, queries, rng))
    query_blocks = new_rows(partial(defaults.write, "queries", 0), sample.queries, columns, threads)
    cell_block: Block = np.zeros((len(documents), 0)), np.zeros((len(sample.queries), 0))
    if cells is not None:
        rows = partial(cells.rows, threads=threads)
        cell_block = rows("documents", documents), rows("queries", sample.queries)
    covariances = moments[:, :triangle], query_blocks[:, :triangle]
    means = moments[:, triangle:-1], query_blocks[:, triangle:-1]
    counts, terms = query_blocks[:, -1:], _BiasTerms.of(means[0], documents.lengths)
    coefficients = _least_squares(
        _factors([cell_block, covariances], means, counts, terms, threads),
        _similarities(sample.queries, documents, threads),
        sample.sources,
    )
    pairs: list[Block] = [
        (coefficients[1] * covariances[0], covariances[1]),
        ((coefficients[2] + coefficients[3] * terms.inverse)[:, np.newaxis] * means[0], means[1]),
        ((coefficients[4:] @ terms.bias)[:, np.newaxis], counts),
    ]
    offset = np.concatenate([block.mean(axis=0, dtype=np.float64) for block, _ in pairs])
    pairs = [(block - block.mean(axis=0), query) for block, query in pairs]
    scaled_cells = coefficients[0] * cell_block[0], cell_block[1]
    return replace(
        defaults,
        coefficients=coefficients,
        units=np.array([_unit(*sides, units) for sides in [scaled_cells, *pairs]], np.float32),
        offset=offset.astype(np.float32),
    )


class _BiasTerms(NamedTuple):
    """Facts of a document that scale its mean token or make its bias."""

    #: One over the length of the mean token, (n,); 0 for a mean token of zero.
    inverse: NDArray[np.float64]
    #: |m|, |m|**2 and the logarithm of the number of tokens, (3, n).
    bias: NDArray[np.float64]

    @classmethod
    def of(cls, means: NDArray[np.floating], lengths: NDArray[np.int64]) -> _BiasTerms:
        """Return the terms of documents, from mean tokens (n, d) and lengths (n,)."""
        square = np.square(means, dtype=np.float64).sum(axis=1)
        norms = np.sqrt(square)
        inverse = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        return cls(inverse, np.stack([norms, square, np.log(lengths)]))


def _factors(
    blocks: list[Block],
    means: Block,
    counts: NDArray[np.float32],
    terms: _BiasTerms,
    threads: int | None,
) -> list[NDArray[np.floating]]:
    """Return the factor of each coefficient, (queries, documents).

    A missing block has zeros.
    """
    along = _products(means, threads)
    factors: list[NDArray[np.floating]] = [_products(block, threads) for block in blocks]
    return [*factors, along, along * terms.inverse, *(counts * term for term in terms.bias)]


def _products(block: Block, threads: int | None) -> NDArray[np.float32]:
    documents, queries = (np.asarray(side, np.float32) for side in block)
    return product(queries, documents.T, threads)


def _directions(
    documents: MultiVectors, config: FDEConfig, threads: int | None
) -> NDArray[np.float32] | None:
    if not 0 < config.num_directions < config.dimension:
        return None
    return principal_directions(documents, config.num_directions, config.seed, threads)


def _similarities(queries: MultiVectors, documents: MultiVectors, threads: int | None) -> NDArray[np.float32]:
    """Return the exact Chamfer similarities, float32 (n_queries, n_documents)."""
    packed = pack_columns(np.asarray(queries.tokens, np.float32)).reshape(-1)

    def score(tokens: Tokens, start: int, stop: int, out: NDArray[np.float32]) -> None:
        score_documents(*tokens, np.arange(start, stop), packed, queries.offsets, out)

    return np.ascontiguousarray(new_rows(score, documents, len(queries), threads).T)


def _queries_and_windows(
    documents: MultiVectors, queries: MultiVectors, rng: np.random.Generator
) -> tuple[MultiVectors, NDArray[np.int64]]:
    """Return queries and windows, and each window's document (-1 for a query)."""
    texts = [text for text in queries if len(text)]
    length = min(_LONGEST, max(1, round(float(np.mean([len(q) for q in texts]))))) if texts else _LENGTH
    if len(texts) > _QUERIES:
        texts = [texts[i] for i in np.sort(rng.choice(len(texts), _QUERIES, replace=False))]
    sources = np.full(len(texts), -1)
    missing = min(_QUERIES - len(texts), len(documents))
    if missing:
        windows, cut_from = pseudo_queries(documents, missing, length, rng)
        texts += list(windows)
        sources = np.concatenate([sources, cut_from])
    arrays = [np.asarray(text, np.float32) for text in texts]
    return MultiVectors.from_arrays(arrays, dimension=documents.dimension), sources


def _mean_covariance(
    triangles: NDArray[np.float32], lengths: NDArray[np.int64], size: int
) -> NDArray[np.float32]:
    """Return the mean of the documents' covariances, float32 (r, r).

    The covariance of a single token is zero.
    """
    unscaled = triangles / np.sqrt(2 * np.log(np.maximum(lengths, 2)))[:, np.newaxis]
    mean = unscaled.mean(axis=0, dtype=np.float64)
    rows, columns = np.triu_indices(size)
    mean[rows != columns] /= np.sqrt(2)
    metric = np.empty((size, size), np.float32)
    metric[rows, columns] = metric[columns, rows] = mean
    return metric


def _unit(block: NDArray[np.floating], query: NDArray[np.floating], units: Units) -> float:
    """Return the factor of the documents' side `block`; queries are divided by it."""
    if units == "rounded":
        peak = float(np.abs(block).max(initial=0))
        return 1 / peak if peak > _LEAST_LENGTH else 1.0
    # Root mean square lengths of the rows.
    lengths = [float(np.sqrt(np.square(side, dtype=np.float64).sum() / len(side))) for side in (block, query)]
    return float(np.sqrt(lengths[1] / lengths[0])) if min(lengths) > _LEAST_LENGTH else 1.0


def _least_squares(
    terms: list[NDArray[np.floating]], similarities: NDArray[np.float32], sources: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the coefficients of the terms; a term of zeros keeps its default."""
    rows, targets = [], []
    for query, document in enumerate(sources.tolist()):
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
