"""What a learned encoder knows, and how it is learned.

Chamfer is a sum over query tokens, ``chamfer(Q, P) = sum_q g_P(q)`` with ``g_P(x) = max_p
<x, p>``.  So a document is a function of one token, and a function that is fitted to its
values at sampled tokens, the landmarks, is a vector (LEMUR, arXiv 2601.21853):

1. ``g_P(x) ~ <w_P, psi(x)>`` with features ``psi(x) = max(W x, 0)``, whose W is random at first and then
   trained (:mod:`muvera.encoders.learned.training`).  Like g_P they grow in proportion to x, so the
   length of tokens does not matter.  The weights w_P are a ridge regression on the values at the
   landmarks, hence linear in these.
2. The weights are cut to the `vector_dimension` directions along which the sampled documents'
   functions differ most over the landmarks.  Both steps together are one matrix, from a
   document's values at the landmarks to its vector; another one maps ``sum_q psi(q)``.

Tokens are multiplied with landmarks and with W in bytes, less the sampled documents' mean token.
A constant is subtracted at each landmark, the sampled documents' mean.  That changes no ranking.

With ``split_mean`` the values are those of the document's tokens less their mean: ``chamfer(Q, P) = <sum_q q,
m> + chamfer(Q, P - m)`` for the mean token m, and the first term stands in floats of its own
(:mod:`muvera.encoders.moments.blocks`).

Sizes: n landmarks, F features, D floats of a vector, m sampled documents, d columns of a token.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from ...numerics.eigenvectors import leading_eigenvectors
from ...numerics.int8_matmul import quantize_columns
from ...numerics.matmul import one_blas_thread, product
from .config import LearnedConfig

__all__ = ["LearnedMaps", "draw_features", "fit_maps"]

# Keeps the metric invertible in float32, in units of the covariance's mean eigenvalue: rounding is some
# 1e-7 of the largest one, which on a narrow cone is almost the sum of all.
_FLOOR = 1e-3

# Of mixed documents in the documents' second moment: its root.
_MIXED_WEIGHT = np.float32(0.3)

# Children of the configuration's seed.
_FEATURES, _STARTING = 0xE0, 0xE1


@dataclass(frozen=True)
class LearnedMaps:
    """Everything that a learned encoder multiplies by.

    Parameters
    ----------
    landmarks : float32 (n, d)
        Tokens at which documents are measured.
    center : float32 (d,)
        Subtracted from documents' tokens, so that bytes hold what is left more finely.
    features : float32 (F, d)
        W, the directions of the features.
    documents : float32 (n, D)
        Map of a document's values at the landmarks.
    queries : float32 (F, D)
        Map of a query's sum of features; queries are multiplied with it in bytes.
    offset : float32 (D,)
        The sampled documents' mean vector, which is subtracted.
    """

    landmarks: NDArray[np.float32]
    center: NDArray[np.float32]
    features: NDArray[np.float32]
    documents: NDArray[np.float32]
    queries: NDArray[np.float32]
    offset: NDArray[np.float32]

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return the arrays by name, as they are saved."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def require_shape(self, config: LearnedConfig) -> None:
        """Raise ValueError where the maps belong to another configuration."""
        count, size = len(self.landmarks), config.sketch_dimension
        wanted = {
            "landmarks": (count, config.dimension),
            "center": (config.dimension,),
            "features": (config.num_features, config.dimension),
            "documents": (count, size),
            "queries": (config.num_features, size),
            "offset": (size,),
        }
        for name, array in self.to_arrays().items():
            if array.shape != wanted[name]:
                raise ValueError(
                    f"The learned maps' {name} has shape {array.shape}, but the configuration asks for "
                    f"{wanted[name]}."
                )


def draw_features(config: LearnedConfig) -> NDArray[np.float32]:
    """Return the random directions W, float32 (F, d)."""
    stream = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(_FEATURES,)))
    return stream.standard_normal((config.num_features, config.dimension), np.float32)


@one_blas_thread()
def fit_maps(
    config: LearnedConfig,
    landmarks: NDArray[np.float32],
    center: NDArray[np.float32],
    features: NDArray[np.float32],
    activations: NDArray[np.float32],
    values: NDArray[np.float32],
    mixed: NDArray[np.float32],
    threads: int | None = None,
) -> LearnedMaps:
    """Learn the maps; the same bits on any number of threads and cores.

    Parameters
    ----------
    config : LearnedConfig
    landmarks : float32 (n, d)
    center : float32 (d,)
    features : float32 (F, d)
    activations : float32 (n, F)
        Features of the landmarks.
    values : float32 (m, n)
        The sampled documents' largest inner products with the landmarks, up to a constant a landmark.
    mixed : float32 (x, n)
        Those of documents that are mixed of them, which have a say in the second step alone.
    threads : int, optional
        Default: all usable cores.

    Returns
    -------
    LearnedMaps
        Columns beyond the rank of the sample are zero.
    """
    count = np.float32(len(landmarks))
    mean = values.mean(axis=0)
    covariance = product(activations.T, activations, threads) / count
    level = max(float(np.trace(covariance)) / len(covariance), 1e-30)
    shrunk = scipy.linalg.cho_factor(
        _raised(covariance, config.ridge * level), lower=True, check_finite=False
    )
    # metric @ metric.T is the covariance: |metric.T w| is how much a function varies over the landmarks.
    metric = scipy.linalg.cholesky(_raised(covariance, _FLOOR * level), lower=True, check_finite=False)
    shown = [values - mean]
    if len(mixed):
        shown.append(_MIXED_WEIGHT * (mixed - mixed.mean(axis=0)))
    targets = product(activations.T, np.concatenate(shown).T, threads) / count
    functions = product(metric.T, scipy.linalg.cho_solve(shrunk, targets, check_finite=False), threads)
    moment = product(functions, functions.T, threads)
    size = config.sketch_dimension
    start = np.random.SeedSequence(config.seed, spawn_key=(_STARTING,))
    spread, axes = leading_eigenvectors(moment, size, start, threads)
    good = spread > 1e-7 * max(float(spread[0]), 1e-30)
    spread, axes = spread[good], axes[:, good]
    # Both sides get the root of the spread: products stay, and neither is much longer than the other.
    root = (spread / len(values)) ** 0.25
    documents = np.zeros((len(landmarks), size), np.float32)
    queries = np.zeros((len(features), size), np.float32)
    kept = len(spread)
    weights = scipy.linalg.cho_solve(shrunk, metric @ (axes / root), check_finite=False)
    documents[:, :kept] = product(activations, weights.astype(np.float32), threads) / count
    queries[:, :kept] = scipy.linalg.solve_triangular(metric.T, axes * root, check_finite=False)
    rounded, units = quantize_columns(documents)  # as documents are multiplied with it
    return LearnedMaps(landmarks, center, features, documents, queries, mean @ (rounded * units))


def _raised(matrix: NDArray[np.float32], amount: float) -> NDArray[np.float32]:
    """Return ``matrix + amount * I``."""
    raised: NDArray[np.float32] = matrix.copy()
    raised.flat[:: len(matrix) + 1] += np.float32(amount)
    return raised
