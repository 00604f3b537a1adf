"""LEMUR's form of document vectors, fitted in seconds: a baseline for FDEs.

See arXiv 2601.21853.

The features of a token are ``max(W x, 0)``, with W trained by gradient descent.  A
query's vector is the sum of its tokens' features.  A document's vector is fitted, so
that their product is the document's largest product with each of some thousand landmark
tokens.  Both are projected to few floats and rounded to bytes.

This was an encoder of the library.  Landmark cells with moments have a higher recall
with half of its floats, and need fewer documents to fit: `experiments vectors family`.

Sizes: n landmarks, F features, D floats of a vector, m sampled documents, t and d
tokens and their columns.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from muvera import MultiVectors
from muvera.data.batches import MAX_FIT_DOCUMENTS, DocumentSample, mean_token
from muvera.fde.landmark_kernels import ByteColumns, largest_products
from muvera.fde.linear_algebra import (
    TASK_TOKENS,
    Quantized,
    Ridge,
    byte_arguments,
    gram,
    leading_eigenvectors,
    one_blas_thread,
    product,
    quantize_columns,
    token_columns,
)
from muvera.fde.tasks import Tokens, Write, new_rows
from muvera.kernels.byte_product import multiply_by_bytes
from muvera.utils.random_streams import random_stream

# Maximum bytes of the values at landmarks per task, because a task may have many short
# documents.
_TASK_BYTES = 64 << 20

# Smaller samples, in documents per float of a vector, are extended by mixed documents.
_DOCUMENTS_PER_FLOAT = 2

# Ridge of regressions on features, in units of their mean variance; three times as much
# hardly changes recall.
_RIDGE = 0.03

# Added to the covariance's diagonal, in units of its mean eigenvalue, so that it is
# invertible in float32.  Rounding errors are about 1e-7 of the largest eigenvalue,
# which is almost the sum of all if token vectors share a direction.
_FLOOR = 1e-3

# Square root of the weight of mixed documents in the documents' second moment.
_MIXED_WEIGHT = np.float32(0.3)

# Training: largest numbers of documents and tokens, directions of the targets, tokens
# in a batch, and Adam's initial learning rates of W and of the layer after it.
_TRAINING_DOCUMENTS, _TRAINING_TOKENS, _DIRECTIONS, _BATCH, _RATES = 1024, 40_000, 192, 512, (3e-3, 1e-3)

# Purposes among the random streams of a seed.
_FEATURES, _STARTING, _LANDMARKS, _MIXING, _BATCHES, _TRAINING = range(0xE0, 0xE6)


class LearnedVectors:
    """Vectors of documents and queries, fitted to documents.

    Parameters
    ----------
    dimension : int
        d.
    floats : int
        D.
    num_landmarks, num_features : int
        n and F.
    training_epochs : int
        Passes over about ten thousand tokens.
    seed : int
    """

    def __init__(
        self,
        dimension: int,
        floats: int = 1024,
        num_landmarks: int = 8192,
        num_features: int = 2048,
        training_epochs: int = 8,
        seed: int = 42,
    ) -> None:
        self.dimension, self.floats, self.seed = dimension, floats, seed
        self._sizes = num_landmarks, num_features, training_epochs

    def fit(self, documents: MultiVectors, threads: int | None = None) -> LearnedVectors:
        """Fit the features and both maps to a sample of the documents; return self."""
        (landmark_count, feature_count, epochs), seed = self._sizes, self.seed
        sampling = DocumentSample(landmark_count, seed, MAX_FIT_DOCUMENTS)
        mean = mean_token(sampling.sample_while_yielding(iter([documents])), self.dimension)
        sample = sampling.documents(self.dimension)
        tokens = sample_tokens(sample, landmark_count, seed)
        self._landmarks = token_columns(*quantize_columns(tokens.T), mean)
        directions = random_stream(seed, _FEATURES).standard_normal(
            (feature_count, self.dimension), np.float32
        )
        if epochs:
            subset, targets = training_sample(sample, seed)
            columns = token_columns(*quantize_columns(targets.T), mean)
            values = self._largest(columns, subset, threads)
            directions = train_features(directions, targets, values, epochs, seed, threads)
        self._features, self._mean = directions, mean
        activations = self._activations(tokens, threads)
        missing = max(0, _DOCUMENTS_PER_FLOAT * self.floats - len(sample))
        mixed, values = (
            self._largest(self._landmarks, texts, threads)
            for texts in (mixed_documents(sample, missing, seed), sample)
        )
        (rows, units), query_map, self._offset = fit_maps(
            activations, values, mixed, self.floats, seed, threads
        )
        self._document_map = byte_arguments(rows, units)
        self._query_map = np.multiply(*query_map)
        return self

    def encode_documents(self, documents: MultiVectors, threads: int | None = None) -> NDArray[np.float32]:
        """Return the vectors of documents, float32 (n, D)."""
        values = self._largest(self._landmarks, documents, threads)
        out = np.empty((len(documents), self.floats), np.float32)
        multiply_by_bytes(values, *self._document_map, out)
        return out - self._offset

    def encode_queries(self, queries: MultiVectors, threads: int | None = None) -> NDArray[np.float32]:
        """Return the vectors of queries, float32 (n, D)."""
        active = self._activations(np.asarray(queries.tokens, np.float32), threads)
        sums = np.zeros((len(queries), active.shape[1]), np.float32)
        filled = queries.lengths > 0
        sums[filled] = np.add.reduceat(active, queries.offsets[:-1][filled], axis=0)
        return product(sums, self._query_map, threads)

    def _activations(self, tokens: NDArray[np.float32], threads: int | None) -> NDArray[np.float32]:
        return np.maximum(product(tokens, np.ascontiguousarray(self._features.T), threads), 0)

    @staticmethod
    def _largest(columns: ByteColumns, texts: MultiVectors, threads: int | None) -> NDArray[np.float32]:
        count = len(columns.units)
        most = max(1, _TASK_BYTES // (4 * count))
        return new_rows(_writer(columns), texts, count, threads, TASK_TOKENS, most)


def _writer(columns: ByteColumns) -> Write:
    def write(tokens: Tokens, start: int, stop: int, out: NDArray[np.float32]) -> None:
        largest_products(tokens, start, stop, columns, out)

    return write


def sample_tokens(
    documents: MultiVectors, count: int, seed: int, purpose: int = _LANDMARKS
) -> NDArray[np.float32]:
    """Return up to `count` tokens, float32 (n, d).

    `purpose` separates the random streams.
    """
    return _pick(documents, count, random_stream(seed, purpose))


def training_sample(documents: MultiVectors, seed: int) -> tuple[MultiVectors, NDArray[np.float32]]:
    """Return the documents and the tokens that features are trained on.

    The tokens are float32 (t, d).
    """
    count = min(_TRAINING_DOCUMENTS, len(documents))
    rows = random_stream(seed, _TRAINING, 1).choice(len(documents), count, replace=False)
    return documents[np.sort(rows)], sample_tokens(documents, _TRAINING_TOKENS, seed, _TRAINING)


def _pick(texts: MultiVectors, count: int, stream: np.random.Generator) -> NDArray[np.float32]:
    rows = np.sort(stream.choice(texts.num_tokens, min(count, texts.num_tokens), replace=False))
    return np.asarray(texts.tokens[rows], np.float32)


def mixed_documents(documents: MultiVectors, count: int, seed: int) -> MultiVectors:
    """Return `count` documents, each made of halves of two.

    They vary in more directions than a small sample.
    """
    stream = random_stream(seed, _MIXING)
    mixed = []
    for pair in stream.integers(0, len(documents), (count, 2)).tolist():
        halves = []
        for tokens in (documents[i] for i in pair):
            half = -(-len(tokens) // 2)
            start = int(stream.integers(0, len(tokens) - half + 1))
            halves.append(tokens[start : start + half])
        mixed.append(np.concatenate(halves))
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
    """Return the maps of documents and queries, and the offset, float32 (D,).

    They have the same bits for any `threads`.

    `activations` (n, F) are the landmarks' features.  `values` (m, n) are the sampled
    documents' largest products with the landmarks; `mixed` are those of mixed
    documents, used only in the second step.  `size` is D; columns beyond the rank of
    the sample are zero.
    """
    count = np.float32(len(activations))
    mean = values.mean(axis=0)
    covariance = gram(activations.T, threads) / count
    level = max(float(np.trace(covariance)) / len(covariance), 1e-30)
    ridge = Ridge(covariance, _RIDGE)
    # metric @ metric.T is the covariance: |metric.T w| is the spread of a function over
    # the landmarks.
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
    # Both sides are scaled by the square root of the spread: products stay the same,
    # and both sides have similar lengths.
    root = (spread / len(values)) ** 0.25
    documents = np.zeros((len(activations), size), np.float32)
    queries = np.zeros((activations.shape[1], size), np.float32)
    rank = len(spread)
    weights = ridge.solution((metric @ (axes / root)).astype(np.float32), threads)
    documents[:, :rank] = product(activations, weights, threads) / count
    queries[:, :rank] = scipy.linalg.solve_triangular(metric.T, axes * root, check_finite=False)
    rounded, units = quantize_columns(documents)
    return (rounded, units), quantize_columns(queries), mean @ (rounded * units)


@one_blas_thread()
def train_features(
    features: NDArray[np.float32],
    tokens: NDArray[np.float32],
    values: NDArray[np.float32],
    epochs: int,
    seed: int,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return directions W, trained with Adam from `features` (F, d).

    With few `tokens`, return `features` unchanged.

    W and one linear layer after it predict the documents' `values` (m, t) at the
    `tokens` (t, d), up to a constant per token.  `values` are overwritten.
    """
    targets = _targets(values, seed, threads)
    if targets.shape[1] == 0 or len(tokens) < 2 * _BATCH:
        return features
    weights = np.ascontiguousarray(features.T) / np.float32(np.sqrt(features.shape[1]))
    layer = _first_layer(weights, tokens, targets, threads)
    stream = random_stream(seed, _BATCHES)
    moments = [[np.zeros_like(layer_weights) for _ in range(2)] for layer_weights in (weights, layer)]
    steps = epochs * (len(tokens) // _BATCH)
    order = np.empty(0, np.int64)
    for step in range(steps):
        if len(order) < _BATCH:
            order = stream.permutation(len(tokens))
        rows, order = order[:_BATCH], order[_BATCH:]
        batch = tokens[rows]
        active = product(batch, weights, threads)
        np.maximum(active, 0, out=active)
        error = product(active, layer, threads)
        error -= targets[rows]
        error *= np.float32(2 / error.size)
        back = product(error, layer.T, threads)
        back *= active > 0
        gradients = product(batch.T, back, threads), product(active.T, error, threads)
        remaining = 1 - step / steps
        for layer_weights, gradient, own, rate in zip(
            (weights, layer), gradients, moments, _RATES, strict=True
        ):
            _adam_step(layer_weights, gradient, own, step + 1, rate * remaining)
    return np.ascontiguousarray(weights.T)


def _targets(values: NDArray[np.float32], seed: int, threads: int | None) -> NDArray[np.float32]:
    """Return the tokens' targets, float32 (t, r), of variance 1 in each direction."""
    values -= values.mean(axis=0)
    values -= values.mean(axis=1, keepdims=True)
    moment = gram(values, threads)
    size = min(_DIRECTIONS, len(values) - 1)
    start = random_stream(seed, _BATCHES, 1)
    spread, axes = leading_eigenvectors(moment, size, start, threads)
    axes = axes[:, spread > 1e-6 * max(float(spread[0]), 1e-30)]
    turned = product(values.T, axes, threads)
    scale: NDArray[np.float32] = turned.std(axis=0)
    turned /= np.maximum(scale, 1e-30)
    return turned


def _first_layer(
    weights: NDArray[np.float32],
    tokens: NDArray[np.float32],
    targets: NDArray[np.float32],
    threads: int | None,
) -> NDArray[np.float32]:
    """Return the ridge regression of the targets on the features of some tokens.

    The result is float32 (F, r).
    """
    rows = slice(None, None, max(1, len(tokens) // (4 * weights.shape[1])))
    active = np.maximum(product(tokens[rows], weights, threads), 0)
    correlations = product(active.T, targets[rows], threads)
    return np.ascontiguousarray(Ridge(gram(active.T, threads), _RIDGE).solution(correlations, threads))


def _adam_step(
    weights: NDArray[np.float32],
    gradient: NDArray[np.float32],
    moments: list[NDArray[np.float32]],
    step: int,
    rate: float,
) -> None:
    """Update `weights` by one step of Adam (Kingma and Ba, arXiv 1412.6980).

    `step` counts from 1.
    """
    first, second = moments
    first *= np.float32(0.9)
    first += np.float32(0.1) * gradient
    second *= np.float32(0.999)
    second += np.float32(0.001) * gradient * gradient
    root = np.sqrt(second / np.float32(1 - 0.999**step)) + np.float32(1e-8)
    weights -= np.float32(rate / (1 - 0.9**step)) * first / root
