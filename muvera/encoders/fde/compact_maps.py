"""Compact maps: a few hundred floats of a long FDE, learned from a sample of documents.

A long FDE keeps a document's tokens in R * 2**k cells; what a query asks of them fits far
fewer numbers.  The maps U and V make ``<U Fq(Q), V Fd(P)>`` as near to the exact Chamfer
similarity as `compact_dimension` floats allow, on pairs of sampled windows of tokens
and documents (reduced-rank regression):

1. ``M = c I + correction``: the FDE's own product, scaled, and a ridge regression of what
   the exact similarities add to it.  The first term is what makes documents outside the
   sample rank beside those inside; the second removes errors that all documents share.
2. M is cut to the rank where the error, weighted as windows and documents lie, is least:
   V spans the leading combinations of the windows' rows of M.  The documents'
   second moment gets a share of the identity, for documents outside the sample vary in
   directions that those inside do not show; so does, and more of it, that of their mean tokens, by
   which documents of other kinds are told apart first of all.

3. The documents' map is rounded to bytes, and so is every long FDE before the product: a
   quarter of the memory and, on many processors, of the time, for errors far below those of
   the rank cut.  The sums are exact integers.

Sizes: n sampled windows, m sampled documents, L floats of a long FDE, D of a compact one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors, as_kernel_arrays
from ...kernels.chamfer import score_documents
from ...kernels.tile import pack_columns
from ...numerics.eigenvectors import leading_eigenvectors
from ...numerics.int8_matmul import quantize_columns
from ...numerics.matmul import one_blas_thread, product
from ...utils.parallel import run_in_ranges, split_by_weight

__all__ = ["CompactMaps", "fit_maps", "sample_windows", "similarities_of"]

# Most windows to learn from, and the bytes that their long FDEs may take.  Of few documents fewer windows
# say as much, and the time of fitting goes with their square.
_WINDOWS, _BYTES, _PER_DOCUMENT = 5120, 256 << 20, 6

# Tokens of a window.  Single tokens say most where all tokens are much alike, long windows where
# they are not and the FDE is to be very short; a few serve both.
_WINDOW = 4

# Ridges, in units of the mean square length: of windows, of documents.  A third or three times
# as much changed recall by less than .005.
_WINDOW_RIDGE, _DOCUMENT_RIDGE = 0.03, 0.3

# The identity's share in the documents' second moment, in units of its mean eigenvalue.
_SPREAD = 0.1

# The same for the columns of the mean token and the bias, in units of their own mean eigenvalue.  Of .1, 1 and
# 10, measured on real documents and on others that the sample did not have, more found more of the others,
# and 10 less where the sample had both kinds.
_MEAN_SPREAD = 1.0

_Encode = Callable[[MultiVectors], NDArray[np.float32]]


@dataclass(frozen=True)
class CompactMaps:
    """What an encoder multiplies long FDEs by.

    Parameters
    ----------
    queries : float32 (L, D)
        Map of query FDEs; queries are multiplied with it in bytes, too.
    documents : int8 (L, D)
        Map of document FDEs, column j in units of ``scales[j]``.
    scales : float32 (D,)
    reach : float32 (1,)
        Entries of document FDEs are rounded to 127ths of it, and kept within it.
    offset : float32 (D,)
        The mapped mean document, which is subtracted: it changes no ranking and leaves
        graphs over the vectors nothing to trip over.
    """

    queries: NDArray[np.float32]
    documents: NDArray[np.int8]
    scales: NDArray[np.float32]
    reach: NDArray[np.float32]
    offset: NDArray[np.float32]

    @property
    def document_map(self) -> NDArray[np.float32]:
        """The documents' map, float32 (L, D)."""
        return self.documents * self.scales

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, as they are saved."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def require_shape(self, long: int, compact: int) -> None:
        """Raise ValueError where the maps belong to another configuration."""
        wanted = {
            "queries": (long, compact),
            "documents": (long, compact),
            "scales": (compact,),
            "reach": (1,),
            "offset": (compact,),
        }
        for name, array in self.to_arrays().items():
            if array.shape != wanted[name]:
                raise ValueError(
                    f"The compact maps' {name} has shape {array.shape}, but the configuration asks for "
                    f"{wanted[name]}."
                )


# Children of the configuration's seed; those of the random matrices have other keys.
_PICKING, _STARTING = 0xC1, 0xC2


def sample_windows(
    documents: MultiVectors, queries: MultiVectors | None, long_dimension: int, seed: int
) -> MultiVectors:
    """Return short texts to learn from, windows of tokens: up to half of them from `queries`."""
    stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_PICKING,)))
    room = max(1, min(_WINDOWS, _PER_DOCUMENT * len(documents), _BYTES // (4 * long_dimension)))
    parts: list[NDArray[np.float32]] = []
    if queries is not None:
        parts += _pick(queries, min(queries.num_tokens, -(-room // 2)), stream)
    parts += _pick(documents, min(documents.num_tokens, room - len(parts)), stream)
    return MultiVectors.from_arrays(parts, dimension=documents.dimension)


def _pick(texts: MultiVectors, count: int, stream: np.random.Generator) -> list[NDArray[np.float32]]:
    """Return windows that begin at `count` tokens and end with their text or before.

    Texts have equal shares: a query asks for one of them, however long it is.
    """
    if count == 0:
        return []
    shares = np.repeat(1 / np.maximum(texts.lengths, 1), texts.lengths)
    chosen = stream.choice(texts.num_tokens, count, replace=False, p=shares / shares.sum())
    starts = np.sort(chosen)
    ends = texts.offsets[np.searchsorted(texts.offsets, starts, side="right")]
    stops = np.minimum(starts + _WINDOW, ends)
    return [
        np.asarray(texts.tokens[start:stop], np.float32) for start, stop in zip(starts, stops, strict=True)
    ]


def similarities_of(
    windows: MultiVectors, documents: MultiVectors, threads: int | None = None
) -> NDArray[np.float32]:
    """Return the exact Chamfer similarities of windows with documents, float32 (n, m)."""
    floats, halves = as_kernel_arrays(documents)
    packed = pack_columns(np.asarray(windows.tokens, np.float32)).reshape(-1)
    out = np.empty((len(documents), len(windows)), np.float32)

    def work(start: int, stop: int) -> None:
        positions = np.arange(start, stop)
        score_documents(
            floats, halves, documents.offsets, positions, packed, windows.offsets, False, out[start:stop]
        )

    run_in_ranges(work, split_by_weight(documents.offsets, 8192, len(documents)), threads)
    return np.ascontiguousarray(out.T)


@one_blas_thread()
def fit_maps(
    windows: NDArray[np.float32],
    documents: NDArray[np.float32],
    similarities: NDArray[np.float32],
    dimension: int,
    mean_columns: int,
    seed: int,
    threads: int | None = None,
) -> CompactMaps:
    """Learn the maps; the same bits on any number of threads and cores.

    Parameters
    ----------
    windows : float32 (n, L)
        Long query FDEs of windows.
    documents : float32 (m, L)
        Long document FDEs.  Centered in place.
    similarities : float32 (n, m)
        What the products should be, up to a constant a window.  Centered in place.
    dimension : int
        D.  Columns that the sample cannot fill are zero.
    mean_columns : int
        So many of the last columns of long FDEs are the mean token and the bias.
    seed : int
        Of the start of the subspace iteration.
    threads : int, optional
        Default: all usable cores.

    Returns
    -------
    CompactMaps
    """
    mean = documents.mean(axis=0)
    reach = float(np.abs(documents).max(initial=0.0))
    documents -= mean
    similarities -= similarities.mean(axis=1, keepdims=True)
    count, long = documents.shape
    products = product(windows, documents.T, threads)
    square = float(np.vdot(products, products))
    scale = float(np.vdot(products, similarities)) / square if square > 0 else 1.0
    if scale <= 0:  # a sample too small to say anything
        scale = 1.0
    gram = product(windows, windows.T, threads)
    weights = _ridge(gram, _WINDOW_RIDGE, similarities - np.float32(scale) * products)
    moment = product(documents, documents.T, threads)
    weights = _ridge(moment, _DOCUMENT_RIDGE, np.ascontiguousarray(weights.T)).T
    # Row i of M is scale * window i + correction i of the documents.  Products of the rows
    # follow from those at hand: n * n * m operations instead of n * n * L, and no n * L array.
    scale32 = np.float32(scale)
    correction = product(gram, weights, threads)
    rows_moment = product(correction, moment, threads)
    reached = scale32 * products + rows_moment
    crossed = scale32 * product(products, correction.T, threads)
    squared = product(rows_moment, correction.T, threads) + crossed + crossed.T + scale32**2 * gram
    spread = np.float32(_SPREAD * max(float(np.trace(moment)), 1e-30) / count / long)
    importance = product(reached, reached.T, threads) / np.float32(count) + spread * squared
    means = np.ascontiguousarray(documents[:, long - mean_columns :])
    mean_spread = np.float32(
        _MEAN_SPREAD * np.square(means, dtype=np.float64).sum() / count / max(1, mean_columns)
    )
    if mean_columns:
        rows_means = scale32 * windows[:, long - mean_columns :] + product(correction, means, threads)
        importance += mean_spread * product(rows_means, np.ascontiguousarray(rows_means.T), threads)
    start = np.random.SeedSequence(seed, spawn_key=(_STARTING,))
    _, leading = leading_eigenvectors(importance, dimension, start, threads)
    del crossed, squared, importance, gram
    # Transposed from the left, so that the smaller matrix is packed.
    by_windows, by_documents = windows.T, documents.T
    document_map = scale32 * product(by_windows, leading, threads) + product(
        by_documents, correction.T @ leading, threads
    )
    seen = product(documents, document_map, threads)
    weighted = product(by_documents, seen, threads) / np.float32(count) + spread * document_map
    weighted[long - mean_columns :] += mean_spread * document_map[long - mean_columns :]
    asked = product(weights, product(documents, weighted, threads), threads)
    query_map = scale32 * weighted + product(by_windows, asked, threads)
    # Both sides in the documents' principal axes, each with the root of the spread there.
    values, axes = scipy.linalg.eigh((document_map.T @ weighted).astype(np.float64))
    values, axes = values[::-1], axes[:, ::-1]
    good = values > 1e-7 * max(values[0], 1e-30)
    axes, values = axes[:, good], values[good]
    compact = np.zeros((2, long, dimension), np.float32)
    compact[0, :, : len(values)] = query_map @ (axes * values**-0.75)
    compact[1, :, : len(values)] = document_map @ (axes * values**-0.25)
    return _rounded(compact[0], compact[1], mean, reach)


def _rounded(
    queries: NDArray[np.float32], documents: NDArray[np.float32], mean: NDArray[np.float32], reach: float
) -> CompactMaps:
    """Return the maps with the documents' one in bytes, each column in its own unit."""
    rounded, scales = quantize_columns(documents)
    kept = np.full(1, reach if reach > 0 else 1.0, np.float32)
    return CompactMaps(queries, rounded, scales, kept, mean @ (rounded * scales))


def _ridge(gram: NDArray[np.float32], ridge: float, targets: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (gram + ridge * its mean diagonal * I)^-1 targets."""
    shifted = gram.copy()
    shifted.flat[:: len(gram) + 1] += np.float32(ridge * max(float(np.trace(gram)) / len(gram), 1e-30))
    factor = scipy.linalg.cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)
    solved = np.asarray(scipy.linalg.cho_solve(factor, targets, check_finite=False), np.float32)
    return solved
