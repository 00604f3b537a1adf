"""MomentsConfig and MomentsEncoder: mean token and covariance of a document, reduced to a few hundred floats.

Compact maps reduce long vectors by a reduced-rank regression, see docs/how-it-works.md.  Sizes: n sampled windows,
m sampled documents, L floats of a long vector, D of a compact one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, cast

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from ..data.batches import MAX_FIT_DOCUMENTS
from ..data.multivectors import MultiVectors
from ..kernels.byte_product import multiply_by_bytes
from ..kernels.learned import largest_products
from ..kernels.moments import compact_queries
from ..utils.parallel import stage
from ..utils.random_streams import random_stream
from .base import Encoder, EncoderArrays, EncoderConfig, KernelArrays, Shapes, Side, run_tasks
from .matmul import (
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
    token_arguments,
)
from .moment_blocks import SAMPLE_DOCUMENTS, MomentBlocks, fit_blocks, mean_tokens, moment_dimension

# Texts per task with compact maps.  With more, a map is read less often; with fewer, long vectors fit into the cache.
_COMPACT_TEXTS = 16

# Largest number of windows, of bytes of their long vectors, and of windows per document.  5,120 windows had the same
# recall, and 3,072 up to .008 less.  Fitting time grows with the square of their number.
_WINDOWS, _BYTES, _PER_DOCUMENT = 4096, 256 << 20, 3

# Tokens of a window: single ones are best if all tokens are alike, more if tokens differ and the vector is very short.
_WINDOW = 4

# Ridges of windows and of documents, in units of the mean square length; recall hardly depends on them.
_WINDOW_RIDGE, _DOCUMENT_RIDGE = 0.03, 0.3

# Ridge of the regression of rounding errors, in units of the mean square of a column.
_ERROR_RIDGE = 0.03

# Share of the identity in the documents' second moment, in units of its mean eigenvalue.
_SPREAD = 0.1

# The same share for the columns of the mean token and the bias.  Of .1, 1 and 10, larger values had higher recall on a
# kind of documents that the sample lacked, and 10 had lower recall if the sample had both kinds.
_MEAN_SPREAD = 1.0

# Children of the configuration's seed.
_PICKING, _STARTING = 0xC1, 0xC2


@dataclass(frozen=True, kw_only=True)
class MomentsConfig(EncoderConfig):
    """Configuration of vectors of a document's mean token, a bias and its covariance.

    ``MomentsConfig(dimension=d)`` is the preset "moments", the default of the library.
    ``MomentsConfig(dimension=d, covariance=False, compact_dimension=None)`` is the preset "mean": encoding is
    memory-bound and hardly needs a fit.  Use it as the baseline for any longer vector.

    Parameters
    ----------
    dimension : int
        Columns of a token vector.
    covariance : bool
        Add the covariance of the document's tokens, which contains most of the information beyond the mean.
        It has r * (r + 1) / 2 floats for r = min(dimension, 128) directions.  Encoding takes longer than for the
        mean alone, and less than for an FDE.
    compact_dimension : int or None
        Size after a map that is fitted to documents.  Default: 256 for tokens of up to 128 columns, otherwise 512.
        256 floats have the recall of the full covariance's thousands.  Fitting takes seconds.  No map is fitted if
        this is None, or if the vector has at most this size without one.
    seed : int
        Seed of the sampled documents and windows.

    Examples
    --------
    >>> MomentsConfig(dimension=128).vector_dimension
    256
    >>> MomentsConfig(dimension=128, compact_dimension=None).vector_dimension
    8385
    >>> MomentsConfig(dimension=128, covariance=False, compact_dimension=None).vector_dimension
    129
    """

    kind: ClassVar[str] = "moments"
    # Keeps long vectors within MAX_DEPTH of :mod:`muvera.kernels.byte_tile`.
    _limits: ClassVar = {"dimension": (1, 32768)}

    dimension: int
    covariance: bool = True
    compact_dimension: int | None = cast("Any", "auto")
    seed: int = 42

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compact_dimension == cast("Any", "auto"):
            # 256 floats cannot represent the mean token of 384 columns, and have a lower recall than an FDE.
            object.__setattr__(self, "compact_dimension", 256 if self.dimension <= 128 else 512)
        if self.compact_dimension is not None and self.compact_dimension >= self.long_dimension:
            object.__setattr__(self, "compact_dimension", None)

    @property
    def long_dimension(self) -> int:
        """Floats before the compact map."""
        return moment_dimension(self.dimension, self.covariance)

    @property
    def vector_dimension(self) -> int:
        """Floats of a vector."""
        return self.compact_dimension or self.long_dimension

    @property
    def needs_fit_sample(self) -> bool:
        """True if a map is fitted to documents, and not only coefficients."""
        return self.compact_dimension is not None


@dataclass(frozen=True)
class CompactMaps(EncoderArrays):
    """The maps of long vectors; column j of a map is in units of entry j of its scales."""

    #: Map of the first T = r * (r + 1) / 2 columns of queries in half bytes, (T / 2, D), T / 2 rounded up.
    triangles: NDArray[np.uint8]
    triangle_scales: NDArray[np.float32]
    #: Map of the other columns of queries, (L - T, D).
    sums: NDArray[np.int8]
    sum_scales: NDArray[np.float32]
    #: Map of documents, (L, D).
    documents: NDArray[np.int8]
    document_scales: NDArray[np.float32]
    #: The mapped mean document (D,), which is subtracted: graphs work better if vectors share no direction.
    offset: NDArray[np.float32]

    prefix: ClassVar[str] = "compact_"

    def _shapes(self, config: Any) -> Shapes:
        long, compact, sums = config.long_dimension, config.compact_dimension, config.dimension + 1
        halves = -(-(long - sums) // 2)
        queries = (halves, compact), (compact,), (sums, compact), (compact,)
        return *queries, (long, compact), (compact,), (compact,)

    @classmethod
    def rounded(
        cls,
        windows: NDArray[np.float32],
        maps: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
        mean_columns: int,
        threads: int | None = None,
    ) -> CompactMaps:
        """Round the result of :func:`fit_maps`; the map of the last columns corrects the error of the first ones.

        The triangles of queries are similar, so a ridge regression on the other columns predicts most of that error.
        """
        queries, documents, mean = maps
        triangle = len(queries) - mean_columns
        halves, scales = quantize_to_half_bytes(queries[:triangle])
        errors = product(
            windows[:, :triangle], half_bytes_to_int8(halves, triangle) * scales - queries[:triangle], threads
        )
        others = windows[:, triangle:]
        ridge = Ridge(gram(others.T, threads), _ERROR_RIDGE)
        sums = queries[triangle:] - ridge.solution(product(others.T, errors, threads), threads)
        rounded = np.multiply(*quantize_columns(documents))
        # Rounding it again changes the last bit of some scales, but no entry.
        return cls(halves, scales, *quantize_columns(sums), *quantize_columns(rounded), mean @ rounded)

    @cached_property
    def document_arguments(self) -> tuple[NDArray[Any], ...]:
        """The map of documents as arguments of a kernel."""
        return byte_arguments(self.documents, self.document_scales)

    @cached_property
    def query_arguments(self) -> tuple[NDArray[Any], ...]:
        """The maps of queries as arguments of a kernel."""
        triangle = len(self.documents) - len(self.sums)
        return (
            *half_byte_arguments(self.triangles, self.triangle_scales, triangle),
            *byte_arguments(self.sums, self.sum_scales),
        )


class MomentsEncoder(Encoder):
    """Turn token sets into their mean token, a bias and their covariance.

    Parameters
    ----------
    config : MomentsConfig
    blocks : MomentBlocks, optional
        Those of a saved encoder, instead of fitting.
    compact : CompactMaps, optional
        Those of a saved encoder, instead of fitting.

    Examples
    --------
    >>> import numpy as np
    >>> from muvera import MomentsConfig, MultiVectors
    >>> rng = np.random.default_rng(0)
    >>> documents = MultiVectors.from_arrays([rng.normal(size=(9, 32)) for _ in range(400)])
    >>> MomentsEncoder(MomentsConfig(dimension=32)).fit(documents).encode_documents(documents).shape
    (400, 256)
    """

    config_class = MomentsConfig
    config: MomentsConfig
    blocks: MomentBlocks | None = None
    compact: CompactMaps | None = None

    @staticmethod
    def _array_classes(config: MomentsConfig) -> dict[str, type[EncoderArrays]]:
        if config.compact_dimension is None:
            return {"blocks": MomentBlocks}
        return {"blocks": MomentBlocks, "compact": CompactMaps}

    # -- fitting --------------------------------------------------------------

    @property
    def _fit_size(self) -> tuple[int, int]:
        most = SAMPLE_DOCUMENTS if self.config.compact_dimension is None else MAX_FIT_DOCUMENTS
        return self.config.long_dimension, most

    def _fit(
        self, sample: MultiVectors, queries: MultiVectors, mean: NDArray[np.float32], threads: int | None
    ) -> None:
        rounded = self.config.compact_dimension is not None
        blocks = fit_blocks(sample, queries, self.config, threads, rounded=rounded)
        if rounded:
            self.compact = self._fitted_maps(blocks, sample, queries, threads)
        self.blocks = blocks

    def _fitted_maps(
        self, blocks: MomentBlocks, documents: MultiVectors, queries: MultiVectors, threads: int | None
    ) -> CompactMaps:
        config = self.config
        windows = sample_windows(documents, queries, config.long_dimension, config.seed)
        with stage("learning moments, 1 of 2"):
            similarities = window_similarities(windows, documents, blocks.directions, threads)
        with stage("learning moments, 2 of 2"):
            columns = config.long_dimension
            long_windows = run_tasks(partial(blocks.write, "queries", 0), windows, columns, threads)
            long_documents = run_tasks(partial(blocks.write, "documents", 0), documents, columns, threads)
            size, means = config.vector_dimension, config.dimension + 1
            maps = fit_maps(long_windows, long_documents, similarities, size, means, config.seed, threads)
            return CompactMaps.rounded(long_windows, maps, means, threads)

    # -- encoding -------------------------------------------------------------

    def _task_size(self, side: Side) -> tuple[int, int | None]:
        tokens, most = super()._task_size(side)
        return tokens, most if self.compact is None else _COMPACT_TEXTS

    def _write(
        self, side: Side, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        assert self.blocks is not None
        if self.compact is None:
            self.blocks.write(side, 0, arrays, start, stop, out)
        elif side == "queries":
            compact_queries(
                *arrays, start, stop, *self.blocks.query_arguments, *self.compact.query_arguments, out
            )
        else:
            block = np.empty((stop - start, self.config.long_dimension), np.float32)
            self.blocks.write(side, 0, arrays, start, stop, block)
            multiply_by_bytes(block, *self.compact.document_arguments, out)
            out -= self.compact.offset


def sample_windows(
    documents: MultiVectors, queries: MultiVectors, long_dimension: int, seed: int
) -> MultiVectors:
    """Return windows of tokens to fit on; up to half of them are from `queries`."""
    stream = random_stream(seed, _PICKING)
    room = max(1, min(_WINDOWS, _PER_DOCUMENT * len(documents), _BYTES // (4 * long_dimension)))
    windows = _pick(queries, -(-room // 2), stream)
    windows += _pick(documents, room - len(windows), stream)
    return MultiVectors.from_arrays(windows, dimension=documents.dimension)


def _pick(texts: MultiVectors, most: int, stream: np.random.Generator) -> list[NDArray[np.float32]]:
    """Return up to `most` windows within texts.

    On average, all texts have the same number of windows, because queries do not prefer long texts.
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
    windows: MultiVectors,
    documents: MultiVectors,
    directions: NDArray[np.float32],
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return approximate similarities of documents with windows, float32 (m, n); none of them is empty.

    Products with a document's mean token are exact.  Those with the deviations from it are computed in bytes, in the
    coordinates of `directions` (r, d), or in all columns if it is empty.
    """
    tokens = np.asarray(windows.tokens, np.float32)
    starts = windows.offsets[:-1]
    means = mean_tokens(documents, threads)
    out = product(means, np.add.reduceat(tokens, starts, axis=0).T, threads)
    turned = product(tokens, directions.T, threads) if directions.size else tokens
    arguments = token_arguments(*quantize_columns(turned.T), np.zeros(turned.shape[1], np.float32))
    none = np.empty((0, turned.shape[1]), np.uint16)

    def add(_: KernelArrays, start: int, stop: int, rows: NDArray[np.float32]) -> None:
        offsets = documents.offsets[start : stop + 1]
        rest = np.asarray(documents.tokens[offsets[0] : offsets[-1]], np.float32)
        rest = rest - np.repeat(means[start:stop], np.diff(offsets), axis=0)
        if directions.size:
            rest = product(rest, directions.T, 1)
        values = np.empty((stop - start, len(turned)), np.float32)
        largest_products(rest, none, offsets - offsets[0], 0, stop - start, *arguments, values)
        rows += np.add.reduceat(values, starts, axis=1)

    return run_tasks(add, documents, out, threads, TASK_TOKENS, 256)


@one_blas_thread()
def fit_maps(
    windows: NDArray[np.float32],
    documents: NDArray[np.float32],
    similarities: NDArray[np.float32],
    dimension: int,
    mean_columns: int,
    seed: int,
    threads: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return the maps of queries and of documents, float32 (L, D), and the mean long document, float32 (L,).

    Their products approximate `similarities` (m, n) up to a constant per window.  `windows` (n, L) and `documents`
    (m, L) are long vectors, whose last `mean_columns` are the mean token and the bias.  Columns that the sample cannot
    fill are zero.  `documents` and `similarities` are overwritten.
    """
    # M = scale * identity + correction is the long vectors' bilinear form.  The first term makes documents outside
    # the sample comparable with those inside; the second is a ridge regression of the remaining similarities.
    mean = documents.mean(axis=0)
    documents -= mean
    similarities -= similarities.mean(axis=0)
    count, long = documents.shape
    products = product(documents, windows.T, threads)
    square = float(np.vdot(products, products))
    scale = float(np.vdot(products, similarities)) / square if square > 0 else 1.0
    scale32 = np.float32(scale if scale > 0 else 1.0)  # it is negative only if the sample is too small
    products *= scale32
    between, moment = gram(windows, threads), gram(documents, threads)
    spread = np.float32(_SPREAD * max(float(np.trace(moment)), 1e-30) / count / long)
    # Row i of M is scale * window i + correction[:, i] @ documents.  All products of the rows follow from the
    # solutions of two ridge regressions, since matrix @ solution = targets - ridge * solution: no n * L array.
    window_ridge, document_ridge = Ridge(between, _WINDOW_RIDGE), Ridge(moment, _DOCUMENT_RIDGE)
    rest = similarities
    rest -= products
    by_windows = window_ridge.solution(rest.T, threads).T
    rest -= window_ridge.amount * by_windows
    correction = document_ridge.solution(rest, threads)
    rest -= document_ridge.amount * correction  # moment @ correction
    means = np.ascontiguousarray(documents[:, long - mean_columns :])
    mean_spread = np.float32(_MEAN_SPREAD * np.square(means, dtype=np.float64).sum() / count / mean_columns)
    # The products of the rows of M with the documents and with the columns of the mean, scaled.
    reached = np.empty((count + mean_columns, len(windows)), np.float32)
    np.add(products, rest, out=reached[:count])
    reached[count:] = scale32 * windows[:, long - mean_columns :].T + product(means.T, correction, threads)
    reached[count:] *= np.sqrt(np.float32(count) * mean_spread)
    importance = gram(reached.T, threads)
    rest *= np.float32(0.5)
    rest += products
    squared = gram(correction.T, threads, rest.T)
    between *= scale32**2
    squared += between
    squared *= np.float32(count) * spread
    importance += squared
    # V spans the leading combinations of the windows' rows of M.
    start = random_stream(seed, _STARTING)
    _, leading = leading_eigenvectors(importance, dimension, start, threads)
    del squared, importance, between, rest, reached, products
    document_map = scale32 * product(windows.T, leading, threads)
    document_map += product(documents.T, product(correction, leading, threads), threads)
    mapped = product(documents, document_map, threads)
    weighted = product(documents.T, mapped, threads) / np.float32(count) + spread * document_map
    weighted[long - mean_columns :] += mean_spread * document_map[long - mean_columns :]
    document_weights = document_ridge.solution(product(documents, weighted, threads), threads)
    query_map = scale32 * weighted
    query_map += product(windows.T, product(by_windows.T, document_weights, threads), threads)
    # Both sides in the documents' principal axes, each scaled by the square root of the spread.
    values, axes = scipy.linalg.eigh((document_map.T @ weighted).astype(np.float64))
    values, axes = values[::-1], axes[:, ::-1]
    good = values > 1e-7 * max(values[0], 1e-30)
    axes, values = axes[:, good], values[good]
    maps = np.zeros((2, long, dimension), np.float32)
    maps[0, :, : len(values)] = query_map @ (axes * values**-0.75)
    maps[1, :, : len(values)] = document_map @ (axes * values**-0.25)
    return maps[0], maps[1], mean
