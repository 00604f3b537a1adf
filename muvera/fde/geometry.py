"""Where a model's token vectors lie: their mean."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..vectors import MultiVectors

__all__ = ["mean_token"]

# Rows added up at a time: float64 copies of a block, not of the collection.
_BLOCK = 65536


def mean_token(batches: Iterable[MultiVectors], dimension: int) -> NDArray[np.float32]:
    """Return the mean of all tokens of all batches, float32 (dimension,).

    Raises
    ------
    ValueError
        Where there is no token, a number that is not finite, or another dimension.
    """
    total = np.zeros(dimension)
    count = 0
    for batch in batches:
        batch.require_dim(dimension, "documents", "this encoder")
        batch.require_finite("documents")
        for start in range(0, batch.num_tokens, _BLOCK):
            total += batch.tokens[start : start + _BLOCK].astype(np.float64).sum(axis=0)
        count += batch.num_tokens
    if count == 0:
        raise ValueError("fit needs documents with at least one token, and these have none.")
    return np.asarray(total / count, np.float32)
