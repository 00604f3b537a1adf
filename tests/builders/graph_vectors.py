"""FDE-like vectors, and the exact results that graph searches are compared with."""

import numpy as np

__all__ = ["exact_best", "like_fdes", "shared"]


def like_fdes(seed: int, n: int, dimension: int = 64) -> np.ndarray:
    """Return clustered directions with norms that differ by some ten per cent, as FDEs have."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).standard_normal((20, dimension))  # queries and vectors share them
    vectors = centers[rng.integers(0, 20, n)] + rng.standard_normal((n, dimension))
    vectors *= rng.normal(1, 0.1, (n, 1)) / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def exact_best(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Return the rows with the largest inner products, best first."""
    return np.argsort(-(queries.astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)[:, :k]


def shared(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the mean share of `expected` that is in `found`, row by row."""
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, expected, strict=True)]))
