"""Maps of a learned encoder (LEMUR, arXiv 2601.21853), and how they are fitted; see docs/how-it-works.md.

Tokens are multiplied with landmarks and with W in bytes, after the sampled documents' mean token is subtracted.
Sizes: n landmarks, F features, D floats of a vector, m sampled documents, d columns of a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ..base import EncoderArrays, Shapes, random_stream
from ..int8 import Quantized, TokenProducts, byte_arguments, quantize_columns
from ..matmul import Ridge, gram, leading_eigenvectors, one_blas_thread, product

# Ridge of the features, in units of their mean variance.  A third or three times as much hardly changes recall.
_RIDGE = 0.03

# Added to the covariance's diagonal, in units of its mean eigenvalue, so that it is invertible in float32.  Rounding
# errors are about 1e-7 of the largest eigenvalue, which is almost the sum of all if token vectors share a direction.
_FLOOR = 1e-3

# Square root of the weight of mixed documents in the documents' second moment.
_MIXED_WEIGHT = np.float32(0.3)

# Largest numbers of documents and tokens that features are trained on.
_TRAINING_DOCUMENTS, _TRAINING_TOKENS = 1024, 40_000

# Children of the configuration's seed.
_FEATURES, _STARTING, _LANDMARKS, _MIXING, _TRAINING = 0xE0, 0xE1, 0xE2, 0xE3, 0xE5


@dataclass(frozen=True)
class LearnedMaps(EncoderArrays):
    """The arrays of a learned encoder.  Column j of an int8 array is in units of entry j of its scales.

    Parameters
    ----------
    center : float32 (d,)
        Subtracted from tokens before they are rounded to bytes, to reduce the rounding error.
    landmarks, landmark_scales : int8 (d, n), float32 (n,)
        Tokens at which documents are measured.
    features, feature_scales : int8 (d, F), float32 (F,)
        The transpose of W, the directions of the features.
    biases : float32 (F,)
        Products of `center` with W before rounding.
    documents, document_scales : int8 (n, D), float32 (D,)
        Map of a document's values at the landmarks.
    queries, query_scales : int8 (F, D), float32 (D,)
        Map of a query's sum of features.
    offset : float32 (D,)
        The sampled documents' mean vector, which is subtracted.
    """

    center: NDArray[np.float32]
    landmarks: NDArray[np.int8]
    landmark_scales: NDArray[np.float32]
    features: NDArray[np.int8]
    feature_scales: NDArray[np.float32]
    biases: NDArray[np.float32]
    documents: NDArray[np.int8]
    document_scales: NDArray[np.float32]
    queries: NDArray[np.int8]
    query_scales: NDArray[np.float32]
    offset: NDArray[np.float32]

    @property
    def num_landmarks(self) -> int:
        """Number of landmarks; a small sample has fewer tokens than the configuration allows."""
        return len(self.landmark_scales)

    def _shapes(self, config: Any) -> Shapes:
        dimension, size, features = config.dimension, config.vector_dimension, config.num_features
        count = self.num_landmarks
        tokens = (dimension,), (dimension, count), (count,), (dimension, features), (features,), (features,)
        return *tokens, (count, size), (size,), (features, size), (size,), (size,)

    @cached_property
    def packed(
        self,
    ) -> tuple[TokenProducts, TokenProducts, tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]]:
        """The packed landmarks, features, map of documents and map of queries."""
        return (
            TokenProducts(self.landmarks, self.landmark_scales, self.center),
            TokenProducts(self.features, self.feature_scales, self.center),
            byte_arguments(self.documents, self.document_scales),
            byte_arguments(self.queries, self.query_scales),
        )


def draw_features(count: int, dimension: int, seed: int) -> NDArray[np.float32]:
    """Return the random directions W, float32 (F, d)."""
    return random_stream(seed, _FEATURES).standard_normal((count, dimension), np.float32)


def sample_tokens(
    documents: MultiVectors, queries: MultiVectors | None, count: int, seed: int, purpose: int = _LANDMARKS
) -> NDArray[np.float32]:
    """Return up to `count` tokens, float32 (n, d); up to half of them are from `queries`.

    Query tokens are the points at which documents will be compared; document tokens replace missing ones.
    `purpose` separates the random streams.
    """
    stream = random_stream(seed, purpose)
    tokens = [] if queries is None else [_pick(queries, -(-count // 2), stream)]
    tokens.append(_pick(documents, count - sum(map(len, tokens)), stream))
    return np.concatenate(tokens)


def training_sample(
    documents: MultiVectors, queries: MultiVectors | None, seed: int
) -> tuple[MultiVectors, NDArray[np.float32]]:
    """Return the documents and the tokens, float32 (t, d), that features are trained on."""
    count = min(_TRAINING_DOCUMENTS, len(documents))
    rows = random_stream(seed, _TRAINING, 1).choice(len(documents), count, replace=False)
    return documents[np.sort(rows)], sample_tokens(documents, queries, _TRAINING_TOKENS, seed, _TRAINING)


def _pick(texts: MultiVectors, count: int, stream: np.random.Generator) -> NDArray[np.float32]:
    rows = np.sort(stream.choice(texts.num_tokens, min(count, texts.num_tokens), replace=False))
    return np.asarray(texts.tokens[rows], np.float32)


def mixed_documents(documents: MultiVectors, count: int, seed: int) -> MultiVectors:
    """Return `count` documents, each made of half the tokens of one document and half of another.

    They vary in directions in which the documents of a small sample do not.
    """
    stream = random_stream(seed, _MIXING)
    mixed = []
    for pair in stream.integers(0, len(documents), (count, 2)).tolist():
        spans = []
        for i in pair:
            length = int(documents.lengths[i])
            half = -(-length // 2)
            start = int(documents.offsets[i]) + int(stream.integers(0, length - half + 1))
            spans.append(documents.tokens[start : start + half])
        mixed.append(np.concatenate(spans))
    return MultiVectors.from_arrays(mixed, dimension=documents.dimension)


@one_blas_thread()
def fit_maps(
    activations: NDArray[np.float32],
    values: NDArray[np.float32],
    mixed: NDArray[np.float32],
    size: int,
    seed: int,
    threads: int | None = None,
) -> tuple[Quantized, Quantized, NDArray[np.float32]]:
    """Return the maps of documents and of queries, and the offset, bit-identical for any number of threads and cores.

    Parameters
    ----------
    activations : float32 (n, F)
        Features of the landmarks.
    values : float32 (m, n)
        The sampled documents' largest inner products with the landmarks, up to a constant per landmark.
    mixed : float32 (x, n)
        Those of mixed documents, which are used only in the second step.
    size : int
        D.  Columns beyond the rank of the sample are zero.
    seed : int
        Seed of the eigenvector iteration.
    """
    count = np.float32(len(activations))
    mean = values.mean(axis=0)
    covariance = gram(activations.T, threads) / count
    level = max(float(np.trace(covariance)) / len(covariance), 1e-30)
    ridge = Ridge(covariance, _RIDGE)
    # metric @ metric.T is the covariance: |metric.T w| is the spread of a function over the landmarks.
    covariance.flat[:: len(covariance) + 1] += np.float32(_FLOOR * level)
    metric = scipy.linalg.cholesky(covariance, lower=True, check_finite=False)
    samples = [values - mean]
    if len(mixed):
        samples.append(_MIXED_WEIGHT * (mixed - mixed.mean(axis=0)))
    targets = product(activations.T, np.concatenate(samples).T, threads) / count
    functions = product(metric.T, ridge.solution(targets, threads), threads)
    moment = gram(functions, threads)
    start = random_stream(seed, _STARTING)
    spread, axes = leading_eigenvectors(moment, size, start, threads)
    good = spread > 1e-7 * max(float(spread[0]), 1e-30)
    spread, axes = spread[good], axes[:, good]
    # Both sides are scaled by the square root of the spread: products stay the same, and both sides have
    # similar lengths.
    root = (spread / len(values)) ** 0.25
    documents = np.zeros((len(activations), size), np.float32)
    queries = np.zeros((activations.shape[1], size), np.float32)
    rank = len(spread)
    weights = ridge.solution((metric @ (axes / root)).astype(np.float32), threads)
    documents[:, :rank] = product(activations, weights, threads) / count
    queries[:, :rank] = scipy.linalg.solve_triangular(metric.T, axes * root, check_finite=False)
    rounded, units = quantize_columns(documents)
    return (rounded, units), quantize_columns(queries), mean @ (rounded * units)
