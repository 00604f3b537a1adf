"""Single vectors as encoders make them, searches filled with them, and recall."""

from __future__ import annotations

from typing import Any

import numpy as np


def clustered(seed: int, count: int, dimension: int = 32) -> np.ndarray:
    """Return vectors around 20 directions, with falling spread and various norms."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(20, dimension))  # queries and vectors share them
    vectors = centers[rng.integers(0, 20, count)] + rng.normal(size=(count, dimension))
    return (vectors / np.sqrt(1 + np.arange(dimension))).astype(np.float32)


def filled(search: Any, vectors: np.ndarray, labels: Any = None, step: int = 10**9) -> Any:
    """Return `search` with these vectors, `step` at a time, under the labels 0, 1, ...

    or others.
    """
    names = np.arange(len(vectors)) if labels is None else np.asarray(labels)
    for start in range(0, len(vectors), step):
        search.add(names[start : start + step], vectors[start : start + step], threads=1)
    return search


def recall(labels: np.ndarray, vectors: np.ndarray, queries: np.ndarray) -> float:
    """Return the mean share of the exact best rows among `labels`.

    A query has as many of both, or fewer rows.
    """
    k = labels.shape[1]
    best = np.argsort(-(queries.astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)[:, :k]
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(best, labels, strict=True)]))
