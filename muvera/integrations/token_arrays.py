"""Token vectors as frameworks hand them over: arrays or tensors of any library, padded or not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..data.multivectors import MultiVectors
from ..data.validation import as_array

__all__ = ["multivectors_of"]


def multivectors_of(matrices: Iterable[Any], *, padded: bool = False) -> MultiVectors:
    """Return arrays, or tensors of any library on any device, as one collection.

    Parameters
    ----------
    matrices : iterable of (tokens, dimension) arrays or tensors
    padded : bool
        Leave out rows of zeros.
    """
    arrays = [
        as_array(one, f"embeddings[{i}]").astype(np.float32, copy=False) for i, one in enumerate(matrices)
    ]
    if padded:
        arrays = [array[array.any(axis=1)] for array in arrays]
    return MultiVectors.from_arrays(arrays)
