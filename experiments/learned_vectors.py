"""LearnedConfig and LearnedEncoder: vectors fitted to exact Chamfer at sampled tokens (LEMUR, arXiv 2601.21853).

See docs/how-it-works.md.  Sizes: n landmarks, F features, D floats of a vector, m sampled documents, t and d tokens
and their columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from ..data.batches import MAX_FIT_DOCUMENTS
from ..data.multivectors import MultiVectors
from ..kernels.byte_product import multiply_by_bytes
from ..kernels.byte_tile import MAX_DEPTH
from ..kernels.learned import adam_step, largest_products, sum_features
from ..utils.parallel import stage
from ..utils.random_streams import random_stream
from .base import Encoder, EncoderArrays, EncoderConfig, KernelArrays, Shapes, Side, run_tasks
from .matmul import (
    TASK_TOKENS,
    Quantized,
    Ridge,
    byte_arguments,
    gram,
    leading_eigenvectors,
    one_blas_thread,
    product,
    quantize_columns,
    token_arguments,
)

# Number of queries per task: each task reads the maps once.
_TASK_QUERIES = 256

# Maximum bytes of the values at landmarks per task, because a task may have many short documents.
_TASK_BYTES = 64 << 20

# Smaller samples, in documents per float of a vector, are extended by mixed documents.
_DOCUMENTS_PER_FLOAT = 2

# Ridge of regressions on features, in units of their mean variance; three times as much hardly changes recall.
_RIDGE = 0.03

# Added to the covariance's diagonal, in units of its mean eigenvalue, so that it is invertible in float32.  Rounding
# errors are about 1e-7 of the largest eigenvalue, which is almost the sum of all if token vectors share a direction.
_FLOOR = 1e-3

# Square root of the weight of mixed documents in the documents' second moment.
_MIXED_WEIGHT = np.float32(0.3)

# Training: largest numbers of documents and tokens, directions of the targets, tokens in a batch, and Adam's initial
# learning rates of W and of the layer after it.
_TRAINING_DOCUMENTS, _TRAINING_TOKENS, _DIRECTIONS, _BATCH, _RATES = 1024, 40_000, 192, 512, (3e-3, 1e-3)

# Children of the configuration's seed.
_FEATURES, _STARTING, _LANDMARKS, _MIXING, _BATCHES, _TRAINING = range(0xE0, 0xE6)


@dataclass(frozen=True, kw_only=True)
class LearnedConfig(EncoderConfig):
    """Configuration of a learned vector, see :mod:`muvera.encoders.learned`.

    Parameters
    ----------
    dimension : int
        Columns of a token vector.
    vector_dimension : int
        Floats of a vector.  More raise recall; memory and search time grow in proportion.
    num_landmarks : int
        Tokens at which documents are measured.  More raise recall; encoding documents takes time in
        proportion: ``2 * num_landmarks * dimension`` operations per document token.
    num_features : int
        Features of a token, at least `vector_dimension` and at most 65,536.  More raise recall.  The time to
        encode queries grows in proportion, that of documents does not, and fitting time grows with the cube.
    training_epochs : int
        Number of passes over about ten thousand sampled tokens to train the features.  0 keeps them random,
        which lowers recall and saves most of the fitting time.  Trained features have at least the recall of
        twice as many random ones.
    seed : int
        Seed of all random draws.

    Notes
    -----
    An index stores up to ``(num_landmarks + num_features) * (vector_dimension + dimension)`` bytes of maps.

    Examples
    --------
    >>> LearnedConfig(dimension=128).vector_dimension
    1024
    """

    kind: ClassVar[str] = "learned"
    _limits: ClassVar = {"training_epochs": (0, None), "num_features": (1, MAX_DEPTH)}

    dimension: int
    vector_dimension: int = 1024
    num_landmarks: int = 8192
    num_features: int = 2048
    training_epochs: int = 8
    seed: int = 42

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vector_dimension > self.num_features:
            raise ValueError(
                f"vector_dimension must be at most num_features={self.num_features}, got "
                f"{self.vector_dimension}. Raise num_features, too."
            )

    @property
    def needs_fit_sample(self) -> bool:
        """True: the maps are fitted to documents."""
        return True


@dataclass(frozen=True)
class LearnedMaps(EncoderArrays):
    """The arrays of a learned encoder; column j of an int8 array is in units of entry j of its scales."""

    #: The sampled documents' mean token, subtracted from tokens to reduce the error of rounding them to bytes.
    center: NDArray[np.float32]
    #: Tokens at which documents are measured, (d, n).
    landmarks: NDArray[np.int8]
    landmark_scales: NDArray[np.float32]
    #: The transpose of W, the directions of the features, (d, F).
    features: NDArray[np.int8]
    feature_scales: NDArray[np.float32]
    #: Products of `center` with W before rounding.
    biases: NDArray[np.float32]
    #: Map of a document's values at the landmarks, (n, D).
    documents: NDArray[np.int8]
    document_scales: NDArray[np.float32]
    #: Map of a query's sum of features, (F, D).
    queries: NDArray[np.int8]
    query_scales: NDArray[np.float32]
    #: The sampled documents' mean vector, which is subtracted.
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
    def packed(self) -> tuple[tuple[NDArray[Any], ...], ...]:
        """Arguments of kernels: landmarks, features, map of documents and map of queries."""
        return (
            token_arguments(self.landmarks, self.landmark_scales, self.center),
            (*token_arguments(self.features, self.feature_scales, self.center), self.biases),
            byte_arguments(self.documents, self.document_scales),
            byte_arguments(self.queries, self.query_scales),
        )


class LearnedEncoder(Encoder):
    """Turn token sets into vectors whose inner product approximates Chamfer, learned from documents.

    A vector of a few hundred floats has the recall of an FDE of 10,240 floats or more.  But encoding documents
    takes many times as long.  See :class:`LearnedConfig` for the costs and
    :mod:`muvera.encoders.learned` for the method.

    Parameters
    ----------
    config : LearnedConfig
    maps : LearnedMaps, optional
        Those of a saved encoder, instead of fitting.

    Examples
    --------
    >>> import numpy as np
    >>> from muvera import LearnedConfig, MultiVectors
    >>> rng = np.random.default_rng(0)
    >>> documents = MultiVectors.from_arrays([rng.normal(size=(9, 32)) for _ in range(40)])
    >>> config = LearnedConfig(dimension=32, vector_dimension=64, num_features=256)
    >>> LearnedEncoder(config).fit(documents).encode_documents(documents).shape
    (40, 64)
    """

    config_class = LearnedConfig
    config: LearnedConfig
    maps: LearnedMaps | None = None

    @staticmethod
    def _array_classes(config: LearnedConfig) -> dict[str, type[EncoderArrays]]:
        return {"maps": LearnedMaps}

    # -- fitting --------------------------------------------------------------

    @property
    def _fit_size(self) -> tuple[int, int]:
        return self.config.num_landmarks, MAX_FIT_DOCUMENTS

    def _fit(
        self, sample: MultiVectors, queries: MultiVectors, mean: NDArray[np.float32], threads: int | None
    ) -> None:
        config, seed = self.config, self.config.seed
        tokens = sample_tokens(sample, queries, config.num_landmarks, seed)
        landmarks = quantize_columns(tokens.T)
        shape = config.num_features, config.dimension
        directions = random_stream(seed, _FEATURES).standard_normal(shape, np.float32)
        if config.training_epochs:
            subset, targets = training_sample(sample, queries, seed)
            with stage("learning features, 1 of 2"):
                arguments = token_arguments(*quantize_columns(targets.T), mean)
                values = _values_of_texts(largest_products, arguments, subset, threads)
                directions = train_features(
                    directions, targets, values, config.training_epochs, seed, threads
                )
        with stage("learning features, 2 of 2"):
            features = quantize_columns(directions.T)
            biases = (directions * mean).sum(axis=1, dtype=np.float64).astype(np.float32)
            arguments = *token_arguments(*features, mean), biases
            single_tokens = MultiVectors(tokens, np.arange(len(tokens) + 1))
            activations = _values_of_texts(sum_features, arguments, single_tokens, threads)
            missing = max(0, _DOCUMENTS_PER_FLOAT * config.vector_dimension - len(sample))
            mixed, values = (
                _values_of_texts(largest_products, token_arguments(*landmarks, mean), texts, threads)
                for texts in (mixed_documents(sample, missing, seed), sample)
            )
            document_map, query_map, offset = fit_maps(
                activations, values, mixed, config.vector_dimension, seed, threads
            )
        self.maps = LearnedMaps(mean, *landmarks, *features, biases, *document_map, *query_map, offset)

    # -- encoding -------------------------------------------------------------

    def _task_size(self, side: Side) -> tuple[int, int | None]:
        if side == "queries" or self.maps is None:
            return TASK_TOKENS, _TASK_QUERIES
        return TASK_TOKENS, max(1, _TASK_BYTES // (4 * self.maps.num_landmarks))

    def _write(
        self, side: Side, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        assert self.maps is not None
        landmarks, features, document_map, query_map = self.maps.packed
        if side == "documents":
            values = np.empty((stop - start, self.maps.num_landmarks), np.float32)
            largest_products(*arrays, start, stop, *landmarks, values)
            multiply_by_bytes(values, *document_map, out)
            out -= self.maps.offset
        else:
            sums = np.empty((stop - start, self.config.num_features), np.float32)
            sum_features(*arrays, start, stop, *features, sums)
            multiply_by_bytes(sums, *query_map, out)


def _values_of_texts(
    kernel: Any, arguments: tuple[NDArray[Any], ...], texts: MultiVectors, threads: int | None
) -> NDArray[np.float32]:
    """Return the result of `largest_products` or `sum_features` for all texts, float32 (len(texts), n)."""

    def write(arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]) -> None:
        kernel(*arrays, start, stop, *arguments, out)

    return run_tasks(write, texts, len(arguments[-1]), threads, TASK_TOKENS)


def sample_tokens(
    documents: MultiVectors, queries: MultiVectors, count: int, seed: int, purpose: int = _LANDMARKS
) -> NDArray[np.float32]:
    """Return up to `count` tokens, float32 (n, d); up to half of them are from `queries`.

    Query tokens are the points at which documents will be compared.  `purpose` separates the random streams.
    """
    stream = random_stream(seed, purpose)
    tokens = _pick(queries, -(-count // 2), stream)
    return np.concatenate([tokens, _pick(documents, count - len(tokens), stream)])


def training_sample(
    documents: MultiVectors, queries: MultiVectors, seed: int
) -> tuple[MultiVectors, NDArray[np.float32]]:
    """Return the documents and the tokens, float32 (t, d), that features are trained on."""
    count = min(_TRAINING_DOCUMENTS, len(documents))
    rows = random_stream(seed, _TRAINING, 1).choice(len(documents), count, replace=False)
    return documents[np.sort(rows)], sample_tokens(documents, queries, _TRAINING_TOKENS, seed, _TRAINING)


def _pick(texts: MultiVectors, count: int, stream: np.random.Generator) -> NDArray[np.float32]:
    rows = np.sort(stream.choice(texts.num_tokens, min(count, texts.num_tokens), replace=False))
    return np.asarray(texts.tokens[rows], np.float32)


def mixed_documents(documents: MultiVectors, count: int, seed: int) -> MultiVectors:
    """Return `count` documents, each made of halves of two; they vary in more directions than a small sample."""
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
    """Return the maps of documents and queries, and the offset, float32 (D,): the same bits for any `threads`.

    `activations` (n, F) are the landmarks' features.  `values` (m, n) are the sampled documents' largest products with
    the landmarks; `mixed` are those of mixed documents, used only in the second step.  `size` is D; columns beyond the
    rank of the sample are zero.
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


@one_blas_thread()
def train_features(
    features: NDArray[np.float32],
    tokens: NDArray[np.float32],
    values: NDArray[np.float32],
    epochs: int,
    seed: int,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return directions W, trained with Adam from `features` (F, d); with few `tokens`, return `features` unchanged.

    W and one linear layer after it predict the documents' `values` (m, t) at the `tokens` (t, d), up to a constant per
    token.  `values` are overwritten.
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
        for layer_weights, gradient, (first, second), rate in zip(
            (weights, layer), gradients, moments, _RATES, strict=True
        ):
            adam_step(
                layer_weights.reshape(-1), gradient.reshape(-1), first.reshape(-1), second.reshape(-1),
                step + 1, np.float32(rate * remaining),
            )  # fmt: skip
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
    """Return the ridge regression of the targets on the features of some tokens, float32 (F, r)."""
    rows = slice(None, None, max(1, len(tokens) // (4 * weights.shape[1])))
    active = np.maximum(product(tokens[rows], weights, threads), 0)
    correlations = product(active.T, targets[rows], threads)
    return np.ascontiguousarray(Ridge(gram(active.T, threads), _RIDGE).solution(correlations, threads))
