"""Training of the features: directions W that fit documents better than twice as many random ones.

Adam trains W and one linear layer after it, which starts as a ridge regression, to predict the values of sampled
documents at sampled tokens.  All sums use :func:`muvera.encoders.matmul.product` or one thread.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...kernels.learned import adam_step
from ..base import random_stream
from ..matmul import Ridge, gram, leading_eigenvectors, one_blas_thread, product

# Directions of the targets, and tokens in a batch.
_DIRECTIONS, _BATCH = 192, 512

# Adam's initial learning rates, of W and of the layer after it.
_RATES = (3e-3, 1e-3)

# Ridge of the first layer, in units of the features' mean variance.
_RIDGE = 0.03

# A child of the configuration's seed.
_BATCHES = 0xE4


@one_blas_thread()
def train_features(
    features: NDArray[np.float32],
    tokens: NDArray[np.float32],
    values: NDArray[np.float32],
    epochs: int,
    seed: int,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return trained directions; with fewer tokens than two batches, return `features` unchanged.

    Parameters
    ----------
    features : float32 (F, d)
        Random directions to start from.
    tokens : float32 (t, d)
    values : float32 (m, t)
        The documents' values at the tokens, up to a constant per token.  Overwritten.
    epochs : int
        Passes over the tokens.
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
