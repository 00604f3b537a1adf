"""The learned final projection: from cells and moments to a few hundred floats.

A reduced-rank regression finds two maps.  Let X (m, L) be long vectors of sampled
documents, cells and moments side by side, minus their mean; W (n, L) long vectors of
*windows*, short runs of tokens that stand for queries; and S (m, n) the exact
similarities, minus each window's mean.  A bilinear form B with X B W' ~ S is fitted
first, as

    B = s I + correction.

The multiple s of the identity makes documents outside the sample comparable with
documents inside; the correction is a ridge regression of what is left.  Then the best
form of rank D replaces B, measured in the documents' second moment, and its two factors
are the maps:

    <map_d' x, map_q' w> = x' B w  up to a constant per query.

Both maps are rounded to bytes; the largest block of queries, to half bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import scipy  # scipy.linalg is imported when a fit uses it, as that takes long
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..kernels.byte_product import multiply_by_bytes
from ..utils.parallel import share_done, stage
from ..utils.random_streams import random_stream
from .arrays import EncoderArrays, Shapes, array
from .config import FDEConfig
from .graph import Graph
from .landmark_kernels import CellMap, largest_products
from .landmarks import LandmarkCells
from .linear_algebra import (
    TASK_TOKENS,
    Ridge,
    byte_arguments,
    gram,
    half_byte_arguments,
    half_bytes_to_int8,
    leading_eigenvectors,
    one_blas_thread,
    product,
    quantize_columns,
    quantize_to_half_bytes,
    token_columns,
)
from .moment_kernels import ByteMap
from .moments import MomentStep, fit_blocks, mean_tokens
from .query_kernels import project_moments, project_queries
from .tasks import ArrayClasses, FitSample, Rows, Side, Step, Texts, Tokens, Value, run_tasks

# Largest number of windows.  5,120 had the same recall, and 3,072 up to .008 less; the
# time of a fit grows with the square of their number.
_WINDOWS = 4096

# Largest number of bytes of the windows' long vectors.
_BYTES = 256 << 20

# Largest number of windows per document.
_PER_DOCUMENT = 3

# Tokens of a window: single tokens are best if all tokens are alike, more if tokens
# differ and the vector is very short.
_WINDOW = 4

# Ridges of windows and of documents, in units of the mean square length of their long
# vectors; recall hardly depends on them.
_WINDOW_RIDGE = 0.03
_DOCUMENT_RIDGE = 0.3

# Ridge of the regression of rounding errors, in units of the mean square of a column.
_ERROR_RIDGE = 0.03

# Share of the identity in the documents' second moment, in units of its mean
# eigenvalue.  Smaller values raise recall on unseen kinds of documents; .3 lowers it.
_SPREAD = 0.03

# The same share for the columns of the mean token and the bias.  Of .1, 1 and 10,
# larger values helped unseen kinds of documents; 10 hurt if both kinds were in the
# sample.
_MEAN_SPREAD = 1.0

# Directions whose spread is below this share of the largest spread are left out.
_LEAST_SPREAD = 1e-7

# Tokens per task when long vectors are fitted: each task reads the landmarks once.
_LANDMARK_TOKENS = 16384

# A smaller share of the sum of squares is a float32 rounding error, for example if all
# documents are equal.
_ROUNDING = 1e-12

# Purposes among the random streams of a seed.
_PICKING, _STARTING = 0xC1, 0xC2


class Maps(NamedTuple):
    """The result of :func:`fit_maps`, before rounding."""

    #: float32 (L, D).
    queries: NDArray[np.float32]
    #: float32 (L, D).
    documents: NDArray[np.float32]
    #: The mean long document, float32 (L,).
    mean: NDArray[np.float32]


@dataclass(frozen=True)
class ProjectionMaps(EncoderArrays):
    """The maps of long vectors in bytes; entry j of a scale is the unit of column j."""

    #: Map of the cells of queries, (C, D).
    cells: NDArray[np.int8] = array(np.int8, unit_of_columns="cell_scales")
    cell_scales: NDArray[np.float32] = array(np.float32)
    #: Map of the T = r (r + 1) / 2 columns of queries' covariances in half bytes,
    #: (T / 2, D), T / 2 rounded up.
    triangles: NDArray[np.uint8] = array(np.uint8, unit_of_columns="triangle_scales")
    triangle_scales: NDArray[np.float32] = array(np.float32)
    #: Map of the other columns of queries, (d + 1, D).
    sums: NDArray[np.int8] = array(np.int8, unit_of_columns="sum_scales")
    sum_scales: NDArray[np.float32] = array(np.float32)
    #: Factors of the columns of documents' long vectors, (L,): all rows of their map
    #: are about equally long, because it is rounded with one unit per column.
    row_units: NDArray[np.float32] = array(np.float32)
    #: Map of documents, (L, D).
    documents: NDArray[np.int8] = array(np.int8, unit_of_columns="document_scales")
    document_scales: NDArray[np.float32] = array(np.float32)
    #: The mapped mean document (D,), which is subtracted: graphs work better if vectors
    #: share no direction.
    offset: NDArray[np.float32] = array(np.float32)

    prefix = "learned_"

    def _shapes(self, config: FDEConfig) -> Shapes:
        size, sums = config.vector_dimension, config.dimension + 1
        # Landmarks of a small sample are fewer than M.
        cells = min(config.cell_dimension, len(self.cells))
        halves = -(-(config.moment_dimension - sums) // 2)
        queries = (cells, size), (size,), (halves, size), (size,), (sums, size), (size,)
        long = cells + config.moment_dimension
        return *queries, (long,), (long, size), (size,), (size,)

    @classmethod
    def rounded(
        cls,
        windows: NDArray[np.float32],
        maps: Maps,
        cell_columns: int,
        mean_columns: int,
        cell_unit: float,
        threads: int | None = None,
    ) -> ProjectionMaps:
        """Round the result of :func:`fit_maps` for the same `windows`.

        The map of the last columns of queries also corrects the rounding error of the
        half bytes.  The triangles of queries are similar, so a ridge regression on the
        last columns predicts most of that error.

        The cells are the first `cell_columns` columns; mean and bias are the last
        `mean_columns`.  The cells of queries in the long vectors were divided by
        `cell_unit`.
        """
        last = len(maps.queries) - mean_columns
        triangle_map = maps.queries[cell_columns:last]
        halves, scales = quantize_to_half_bytes(triangle_map)
        errors = product(
            windows[:, cell_columns:last],
            half_bytes_to_int8(halves, len(triangle_map)) * scales - triangle_map,
            threads,
        )
        others = windows[:, last:]
        ridge = Ridge(gram(others.T, threads), _ERROR_RIDGE)
        sums = maps.queries[last:] - ridge.solution(product(others.T, errors, threads), threads)
        cells = maps.queries[:cell_columns] / np.float32(cell_unit)
        row_units = np.sqrt(np.square(maps.documents, dtype=np.float64).mean(axis=1)).astype(np.float32)
        row_units[row_units == 0] = 1
        rows, units = quantize_columns(maps.documents / row_units[:, np.newaxis])
        return cls(
            *quantize_columns(cells),
            halves,
            scales,
            *quantize_columns(sums),
            row_units,
            rows,
            units,
            (maps.mean * row_units) @ (rows * units),
        )

    @cached_property
    def document_map(self) -> ByteMap:
        """The map of documents for kernels."""
        return ByteMap(*byte_arguments(self.documents, self.document_scales))

    @cached_property
    def triangle_map(self) -> ByteMap:
        """The map of queries' covariances for kernels, in half bytes."""
        triangle = len(self.documents) - len(self.sums) - len(self.cells)
        return ByteMap(*half_byte_arguments(self.triangles, self.triangle_scales, triangle))

    def triangles_onnx(self, graph: Graph) -> Value:
        """Return the map of queries' covariances as floats, from half bytes.

        A byte has the entry of a row in its low half, and the entry of the row half a
        map below in its high half.
        """
        triangle = len(self.documents) - len(self.sums) - len(self.cells)
        entries = half_bytes_to_int8(self.triangles, triangle).astype(np.int16) // 16 + 8
        halves = np.split(np.pad(entries.astype(np.uint8), ((0, triangle % 2), (0, 0))), 2)
        packed = graph.constant(halves[0] | halves[1] << 4)
        low, high = packed.op("Mod", np.uint8(16)), packed.op("BitShift", np.uint8(4), direction="RIGHT")
        numbers = low.op("Concat", high, axis=0).floats() * 16.0 - 120.0
        return numbers.op("Slice", np.array([0]), np.array([triangle])) if triangle % 2 else numbers

    @cached_property
    def sum_map(self) -> ByteMap:
        """The map of queries' sums for kernels."""
        return ByteMap(*byte_arguments(self.sums, self.sum_scales))

    @cached_property
    def cell_rows(self) -> CellMap:
        """The map of queries' landmark cells; kernels read few of its rows."""
        return CellMap(
            self.cells, self.cell_scales, self.cells.sum(axis=0, dtype=np.int64).astype(np.float32)
        )

    @cached_property
    def cell_map(self) -> ByteMap:
        """The map of queries' SimHash cells for kernels, which read all of it."""
        return ByteMap(*byte_arguments(self.cells, self.cell_scales))


class ProjectionStep(Step):
    """The learned projection of one encoder, of its cells and moments.

    It also fits the moments, because it scales cells and moments to each other.
    """

    before: MomentStep
    learned: ProjectionMaps
    array_classes: ClassVar[ArrayClasses] = {"learned": ProjectionMaps}

    @stage("learning the projection")
    def fit(self, sample: FitSample) -> None:
        """Fit the blocks of moments, balance them with cells, and fit the maps."""
        documents, queries, others, _, threads = sample
        config, moments = self.config, self.before
        blocks = fit_blocks(documents, queries, config, threads, units="rounded")
        # The projection weighs the cells.
        blocks.coefficients[0] = 1
        moments.blocks = blocks
        columns, cells = moments.columns, moments.columns - config.moment_dimension
        windows = sample_windows(documents, queries, columns, config.seed)
        documents = MultiVectors.concatenate([documents, others]) if len(others) else documents
        share_done(0.1)
        similarities = window_similarities(windows, documents, threads)
        share_done(0.2)
        long_documents = moments.rows("documents", documents, threads, _LANDMARK_TOKENS)
        long_windows = moments.rows("queries", windows, threads, _LANDMARK_TOKENS)
        share_done(0.3)
        unit = np.float32(_cell_unit(long_documents, cells))
        long_documents[:, :cells] *= unit
        long_windows[:, :cells] /= unit
        size, means = config.vector_dimension, config.dimension + 1
        maps = fit_maps(long_windows, long_documents, similarities, size, means, config.seed, threads)
        blocks.units[0] *= unit
        cell_unit = float(blocks.units[0])
        self.learned = ProjectionMaps.rounded(long_windows, maps, cells, means, cell_unit, threads)

    def write(self, side: Side, tokens: Tokens, start: int, stop: int, out: Rows) -> None:
        """Write the vectors of texts start..stop; long vectors only of documents."""
        blocks, learned, cells = self.before.blocks, self.learned, self.before.before
        if side == "documents":
            long = np.empty((stop - start, self.before.columns), np.float32)
            self.before.write(side, tokens, start, stop, long)
            long *= learned.row_units
            multiply_by_bytes(long, *learned.document_map, out)
            out -= learned.offset
            return
        moments = *blocks.packed_directions, *blocks.query_metric, *learned.triangle_map, *learned.sum_map
        if isinstance(cells, LandmarkCells):
            sharpness = cells.value.landmark_sharpness
            landmark_cells = *cells.landmarks.directions, sharpness, *learned.cell_rows
            project_queries(tuple(tokens), start, stop, moments, landmark_cells, out)
            return
        project_moments(tuple(tokens), start, stop, moments, out)
        if cells is not None:
            products, long = np.empty_like(out), np.empty((stop - start, cells.columns), np.float32)
            cells.write(side, tokens, start, stop, long)
            multiply_by_bytes(long, *learned.cell_map, products)
            out += products

    def onnx(self, side: Side, texts: Texts) -> Value:
        """Return the product with the map; queries' parts have maps of their own."""
        blocks, learned, cells = self.before.blocks, self.learned, self.before.before
        if side == "documents":
            long = self.before.onnx(side, texts) * learned.row_units
            return long.times_bytes(learned.documents, learned.document_scales) - learned.offset
        covariances, sums = blocks.onnx(side, texts)
        vector = sums.times_bytes(learned.sums, learned.sum_scales)
        for triangles in covariances:
            numbers, unit = triangles.rounded(32767, -1)
            vector += numbers @ learned.triangles_onnx(texts.graph) * learned.triangle_scales * unit
        if isinstance(cells, LandmarkCells):
            shares = cells.onnx(side, texts) @ texts.graph.bytes(learned.cells)
            vector += shares * learned.cell_scales
        elif cells is not None:
            vector += cells.onnx(side, texts).times_bytes(learned.cells, learned.cell_scales)
        return vector


def sample_windows(
    documents: MultiVectors, queries: MultiVectors, long_dimension: int, seed: int
) -> MultiVectors:
    """Return windows of tokens to fit on.

    Up to half of them are from the queries, which may be empty.  The dimension of the
    vectors of windows, `long_dimension`, limits their number.
    """
    stream = random_stream(seed, _PICKING)
    room = max(1, min(_WINDOWS, _PER_DOCUMENT * len(documents), _BYTES // (4 * long_dimension)))
    windows = _pick(queries, -(-room // 2), stream)
    windows += _pick(documents, room - len(windows), stream)
    return MultiVectors.from_arrays(windows, dimension=documents.dimension)


def _pick(texts: MultiVectors, most: int, stream: np.random.Generator) -> list[NDArray[np.float32]]:
    """Return up to `most` windows within texts.

    On average, all texts have the same number of windows, because queries do not prefer
    long texts.
    """
    count = min(texts.num_tokens, most)
    if count == 0:
        return []
    shares = np.repeat(1 / np.maximum(texts.lengths, 1), texts.lengths)
    starts = np.sort(stream.choice(texts.num_tokens, count, replace=False, p=shares / shares.sum()))
    ends = texts.offsets[np.searchsorted(texts.offsets, starts, side="right")]
    stops = np.minimum(starts + _WINDOW, ends)
    return [
        np.asarray(texts.tokens[start:stop], np.float32) for start, stop in zip(starts, stops, strict=True)
    ]


def window_similarities(
    windows: MultiVectors, documents: MultiVectors, threads: int | None = None
) -> NDArray[np.float32]:
    """Return the similarities, float32 (m, n), of m documents with n windows.

    Products with a document's mean token are exact.  Products with the deviations from
    it are computed in bytes.  No window and no document is empty.
    """
    tokens = np.asarray(windows.tokens, np.float32)
    starts = windows.offsets[:-1]
    means = mean_tokens(documents, threads)
    out = product(means, np.add.reduceat(tokens, starts, axis=0).T, threads)
    columns = token_columns(*quantize_columns(tokens.T), np.zeros(documents.dimension, np.float32))
    none = np.empty((0, documents.dimension), np.uint16)
    none.flags.writeable = False

    def add(_: Tokens, start: int, stop: int, rows: NDArray[np.float32]) -> None:
        offsets = documents.offsets[start : stop + 1]
        rest = np.asarray(documents.tokens[offsets[0] : offsets[-1]], np.float32)
        rest = rest - np.repeat(means[start:stop], np.diff(offsets), axis=0)
        # Read-only like document tokens, or numba compiles the kernel again.
        rest.flags.writeable = False
        values = np.empty((stop - start, len(tokens)), np.float32)
        largest_products(Tokens(rest, none, offsets - offsets[0]), 0, stop - start, columns, values)
        rows += np.add.reduceat(values, starts, axis=1)

    return run_tasks(add, documents, out, threads, TASK_TOKENS, 256)


@one_blas_thread()
def fit_maps(
    windows: NDArray[np.float32],
    documents: NDArray[np.float32],
    similarities: NDArray[np.float32],
    size: int,
    mean_columns: int,
    seed: int,
    threads: int | None = None,
) -> Maps:
    """Fit the maps of queries and of documents to similarities.

    Columns that the sample cannot fill are zero.

    Parameters
    ----------
    windows : numpy.ndarray
        W, float32 (n, L).
    documents : numpy.ndarray
        X, float32 (m, L); overwritten.
    similarities : numpy.ndarray
        S, float32 (m, n); overwritten.
    size : int
        D, the number of columns of both maps.
    mean_columns : int
        Number of last columns, which have the mean token and the bias.
    seed : int
        Seed of the draws.
    threads : int or None
        Number of threads.  Default: all usable cores.
    """
    mean = documents.mean(axis=0)
    documents -= mean
    similarities -= similarities.mean(axis=0)
    form = _bilinear_form(windows, documents, similarities, threads)
    share_done(0.6)
    spread = _Spread.of(documents, mean_columns)
    leading = _leading_combinations(form, spread, windows, documents, size, seed, threads)
    share_done(0.8)
    factors = _factors(form, spread, leading, windows, documents, threads)
    share_done(0.9)
    return Maps(*_balanced(*factors, size, threads), mean)


class _Form(NamedTuple):
    """The bilinear form B = s I + correction, by the rows of W B'.

    Row i of W B' is ``s * W[i] + correction[:, i] @ X``.  No array (L, L) is needed.
    """

    scale: np.float32
    #: (m, n).
    correction: NDArray[np.float32]
    #: The ridge regression of the similarities on windows, (m, n).
    by_windows: NDArray[np.float32]
    #: ``s * X W'``, and ``X X' correction``, both (m, n).
    products: NDArray[np.float32]
    corrected: NDArray[np.float32]
    #: The ridge regression on documents.
    document_ridge: Ridge
    #: ``W W'``, (n, n).
    between: NDArray[np.float32]


def _bilinear_form(
    windows: NDArray[np.float32],
    documents: NDArray[np.float32],
    similarities: NDArray[np.float32],
    threads: int | None,
) -> _Form:
    """Fit s by least squares, and the correction by two ridge regressions (step 1).

    All products of the rows follow from matrix @ solution = targets - ridge * solution.
    """
    products = product(documents, windows.T, threads)
    square = float(np.vdot(products, products))
    scale = float(np.vdot(products, similarities)) / square if square > 0 else 1.0
    # It is negative only if the sample is too small.
    scale32 = np.float32(scale if scale > 0 else 1.0)
    products *= scale32
    between = gram(windows, threads)
    window_ridge = Ridge(between, _WINDOW_RIDGE)
    document_ridge = Ridge(gram(documents, threads), _DOCUMENT_RIDGE)
    rest = similarities
    rest -= products
    by_windows = window_ridge.solution(rest.T, threads).T
    rest -= window_ridge.amount * by_windows
    correction = document_ridge.solution(rest, threads)
    rest -= document_ridge.amount * correction
    return _Form(scale32, correction, by_windows, products, rest, document_ridge, between)


class _Spread(NamedTuple):
    """What is added to the second moment, for documents outside the sample."""

    #: Multiple of the identity.
    everywhere: np.float32
    #: Further multiple in the columns of mean and bias.
    in_mean: np.float32
    mean_columns: int

    @classmethod
    def of(cls, documents: NDArray[np.float32], mean_columns: int) -> _Spread:
        count, long = documents.shape
        square = float(np.vdot(documents, documents))
        means = documents[:, long - mean_columns :]
        mean_square = np.square(means, dtype=np.float64).sum()
        return cls(
            np.float32(_SPREAD * max(square, 1e-30) / count / long),
            np.float32(_MEAN_SPREAD * mean_square / count / mean_columns),
            mean_columns,
        )


def _leading_combinations(
    form: _Form,
    spread: _Spread,
    windows: NDArray[np.float32],
    documents: NDArray[np.float32],
    size: int,
    seed: int,
    threads: int | None,
) -> NDArray[np.float32]:
    """Return the combinations of windows whose rows of W B' matter most, (n, D).

    Step 2: they are the leading eigenvectors of ``W B' C B W'``, with the documents'
    second moment C plus the spread.
    """
    count, start = len(documents), windows.shape[1] - spread.mean_columns
    # The rows' products with the documents, and their scaled columns of mean and bias.
    reached = np.empty((count + spread.mean_columns, len(windows)), np.float32)
    np.add(form.products, form.corrected, out=reached[:count])
    means = np.ascontiguousarray(documents[:, start:])
    reached[count:] = form.scale * windows[:, start:].T + product(means.T, form.correction, threads)
    reached[count:] *= np.sqrt(np.float32(count) * spread.in_mean)
    importance = gram(reached.T, threads)
    del reached
    half = form.corrected * np.float32(0.5) + form.products
    squared = gram(form.correction.T, threads, half.T)
    squared += form.between * form.scale**2
    squared *= np.float32(count) * spread.everywhere
    importance += squared
    return leading_eigenvectors(importance, size, random_stream(seed, _STARTING), threads)[1]


def _factors(
    form: _Form,
    spread: _Spread,
    leading: NDArray[np.float32],
    windows: NDArray[np.float32],
    documents: NDArray[np.float32],
    threads: int | None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return both factors, and C times the factor of documents (steps 3 and 4).

    The documents' factor F is ``B W' V`` with the combinations V.  The queries' factor
    is ``B' C F``, computed with the ridge regression of step 1.
    """
    count, start = len(documents), windows.shape[1] - spread.mean_columns
    factor = form.scale * product(windows.T, leading, threads)
    factor += product(documents.T, product(form.correction, leading, threads), threads)
    mapped = product(documents, factor, threads)
    weighted = product(documents.T, mapped, threads) / np.float32(count) + spread.everywhere * factor
    weighted[start:] += spread.in_mean * factor[start:]
    weights = form.document_ridge.solution(product(documents, weighted, threads), threads)
    queries = form.scale * weighted
    queries += product(windows.T, product(form.by_windows.T, weights, threads), threads)
    return queries, factor, weighted


def _balanced(
    queries: NDArray[np.float32],
    factor: NDArray[np.float32],
    weighted: NDArray[np.float32],
    size: int,
    threads: int | None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn both factors into principal axes, about equally long (step 5).

    Each side is scaled by the square root of the spread along an axis.
    """
    values, axes = scipy.linalg.eigh((factor.T @ weighted).astype(np.float64))
    values, axes = values[::-1], axes[:, ::-1]
    good = values > _LEAST_SPREAD * max(values[0], 1e-30)
    axes, values = axes[:, good], values[good]
    maps = np.zeros((2, len(factor), size), np.float32)
    for side, power, out in ((queries, -0.75, maps[0]), (factor, -0.25, maps[1])):
        out[:, : len(values)] = product(side, (axes * values**power).astype(np.float32), threads)
    return maps[0], maps[1]


def _cell_unit(documents: NDArray[np.float32], cells: int) -> float:
    """Return the factor that scales the cells' standard deviation to the moments'."""
    parts = documents[:, :cells], documents[:, cells:]
    spreads = [float(np.square(part - part.mean(axis=0), dtype=np.float64).sum()) for part in parts]
    sizes = [float(np.square(part, dtype=np.float64).sum()) for part in parts]
    if any(spread <= _ROUNDING * size for spread, size in zip(spreads, sizes, strict=True)):
        return 1.0
    return math.sqrt(spreads[1] / spreads[0])
