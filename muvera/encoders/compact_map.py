"""Compact maps: reduce long vectors to a few hundred floats by a reduced-rank regression, see docs/how-it-works.md.

Sizes: n sampled windows, m sampled documents, L floats of a long vector, D of a compact one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..kernels.byte_product import multiply_by_bytes
from ..utils.parallel import run_in_ranges, split_by_weight
from .base import EncoderArrays, Shapes, random_stream
from .int8 import (
    TASK_TOKENS,
    TokenProducts,
    byte_arguments,
    half_byte_arguments,
    half_bytes_to_int8,
    quantize_columns,
    quantize_to_half_bytes,
)
from .matmul import Ridge, gram, leading_eigenvectors, one_blas_thread, product
from .moment_blocks import mean_tokens

# Largest number of windows, of bytes of their long vectors, and of windows per document.  5,120 windows had the same
# recall, and 3,072 up to .008 less (mean of four seeds).  Fitting time grows with the square of their number.
_WINDOWS, _BYTES, _PER_DOCUMENT = 4096, 256 << 20, 3

# Tokens of a window.  Single tokens are best if all tokens are alike, long windows if tokens differ and the
# vector is very short; a few tokens suit both cases.
_WINDOW = 4

# Ridges of windows and of documents, in units of the mean square length.  A third or three times as much
# changed recall by less than .005.
_WINDOW_RIDGE, _DOCUMENT_RIDGE = 0.03, 0.3

# Ridge of the regression of rounding errors, in units of the mean square of a column.
_ERROR_RIDGE = 0.03

# Share of the identity in the documents' second moment, in units of its mean eigenvalue.
_SPREAD = 0.1

# The same share for the columns of the mean token and the bias, in units of their mean eigenvalue.  Of .1, 1
# and 10, larger values had higher recall on a kind of documents that the sample lacked.  If the sample had both kinds,
# 10 had lower recall.
_MEAN_SPREAD = 1.0

# Children of the configuration's seed.
_PICKING, _STARTING = 0xC1, 0xC2


@dataclass(frozen=True)
class CompactMaps(EncoderArrays):
    """The maps of long vectors.

    Parameters
    ----------
    triangles : uint8 (T / 2, D), T / 2 rounded up
        Map of the first T = r * (r + 1) / 2 columns of queries in half bytes, see
        :func:`muvera.encoders.int8.quantize_to_half_bytes`.
    triangle_scales : float32 (D,)
        Unit of each column of `triangles`.
    sums : int8 (L - T, D)
        Map of the other columns of queries, column j in units of ``sum_scales[j]``.
    sum_scales : float32 (D,)
    documents : int8 (L, D)
        Map of documents, column j in units of ``document_scales[j]``.
    document_scales : float32 (D,)
    offset : float32 (D,)
        The mapped mean document, which is subtracted.  This does not change the ranking, and graphs work
        better if vectors share no direction.
    """

    triangles: NDArray[np.uint8]
    triangle_scales: NDArray[np.float32]
    sums: NDArray[np.int8]
    sum_scales: NDArray[np.float32]
    documents: NDArray[np.int8]
    document_scales: NDArray[np.float32]
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
        """Round the result of :func:`fit_maps` for these windows.

        The triangles of queries are similar, so rounding their map to half bytes adds a similar error to each product.
        A ridge regression on the other columns of the windows predicts this error.  Its solution is subtracted from
        the map of these columns.
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
    def _document_map(self) -> tuple[NDArray[Any], ...]:
        return byte_arguments(self.documents, self.document_scales)

    @cached_property
    def query_arguments(self) -> tuple[NDArray[Any], ...]:
        """The maps of queries as arguments of a kernel."""
        triangle = len(self.documents) - len(self.sums)
        return (
            *half_byte_arguments(self.triangles, self.triangle_scales, triangle),
            *byte_arguments(self.sums, self.sum_scales),
        )

    def multiply(self, block: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Write the vectors of `block` (n, L), long vectors of documents, to `out` (n, D)."""
        multiply_by_bytes(block, *self._document_map, out)
        out -= self.offset


def sample_windows(
    documents: MultiVectors, queries: MultiVectors | None, long_dimension: int, seed: int
) -> MultiVectors:
    """Return windows of tokens to fit on; up to half of them are from `queries`."""
    stream = random_stream(seed, _PICKING)
    room = max(1, min(_WINDOWS, _PER_DOCUMENT * len(documents), _BYTES // (4 * long_dimension)))
    windows: list[NDArray[np.float32]] = []
    if queries is not None:
        windows += _pick(queries, min(queries.num_tokens, -(-room // 2)), stream)
    windows += _pick(documents, min(documents.num_tokens, room - len(windows)), stream)
    return MultiVectors.from_arrays(windows, dimension=documents.dimension)


def _pick(texts: MultiVectors, count: int, stream: np.random.Generator) -> list[NDArray[np.float32]]:
    """Return windows that begin at `count` sampled tokens and do not extend beyond their text.

    On average, all texts have the same number of windows, because queries do not prefer long texts.
    """
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
    """Return approximate similarities of documents with windows, float32 (m, n).

    Products with a document's mean token are exact.  Products with the deviations from it are computed in bytes, in
    the coordinates of `directions`.

    Parameters
    ----------
    windows, documents : MultiVectors
        Without empty texts.
    directions : float32 (r, d), or (0, 0) for all columns
        Orthonormal rows.
    """
    tokens = np.asarray(windows.tokens, np.float32)
    starts = windows.offsets[:-1]
    means = mean_tokens(documents, threads)
    out = product(means, np.add.reduceat(tokens, starts, axis=0).T, threads)
    turned = product(tokens, directions.T, threads) if directions.size else tokens
    measure = TokenProducts(*quantize_columns(turned.T), np.zeros(turned.shape[1], np.float32))
    none = np.empty((0, turned.shape[1]), np.uint16)

    def work(start: int, stop: int) -> None:
        offsets = documents.offsets[start : stop + 1]
        rest = np.asarray(documents.tokens[offsets[0] : offsets[-1]], np.float32)
        rest = rest - np.repeat(means[start:stop], np.diff(offsets), axis=0)
        if directions.size:
            rest = product(rest, directions.T, 1)
        values = np.empty((stop - start, len(turned)), np.float32)
        measure.write_largest((rest, none, offsets - offsets[0]), 0, stop - start, values)
        out[start:stop] += np.add.reduceat(values, starts, axis=1)

    run_in_ranges(work, split_by_weight(documents.offsets, TASK_TOKENS, 256), threads)
    return out


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
    """Return the maps of queries and of documents, float32 (L, D), and the mean long document.

    The result is bit-identical for any number of threads and cores.

    Parameters
    ----------
    windows : float32 (n, L)
        Long query vectors of windows.
    documents : float32 (m, L)
        Long document vectors.  Centered in place.
    similarities : float32 (m, n)
        Target products, up to a constant per window.  Overwritten.
    dimension : int
        D.  Columns that the sample cannot fill are zero.
    mean_columns : int
        Number of the last columns of long vectors that are the mean token and the bias.
    seed : int
        Fixes the start of the eigenvector iteration.
    threads : int, optional
        Default: all usable cores.
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
