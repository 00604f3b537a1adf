"""Checks of what tune is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_multivectors
from ..utils.checks import require_int
from .sample import MIN_HELD_OUT
from .search_space import EncoderCandidate, Storage

__all__ = ["MIN_DOCUMENTS", "MIN_QUERIES", "require_values", "texts_with_tokens", "within_limits"]

#: Smallest numbers of documents, and of queries to select by and to hold out.
MIN_DOCUMENTS, MIN_QUERIES = 50, 2 * MIN_HELD_OUT


def require_values(
    target_recall: float | None,
    max_bytes: int | None,
    max_floats: int | None,
    candidates: int | None,
    sample: int,
    seed: int,
) -> None:
    """Check the numbers that tune is given.

    Raises
    ------
    TypeError
        For a value that is no int.
    ValueError
        For two limits of the size, or a value out of its range.
    """
    if max_bytes is not None and max_floats is not None:
        raise ValueError(
            f"max_bytes={max_bytes} and max_floats={max_floats} both limit the size. Give one of them."
        )
    if target_recall is not None and not 0 < target_recall <= 1:
        raise ValueError(f"target_recall must be above 0 and at most 1, got {target_recall}.")
    for name, value, minimum in (
        ("max_bytes", max_bytes, 1),
        ("max_floats", max_floats, 1),
        ("candidates", candidates, 1),
        ("sample", sample, MIN_DOCUMENTS),
        ("seed", seed, 0),
    ):
        if value is not None:
            require_int(name, value, minimum)


def texts_with_tokens(
    documents: Any, queries: Any
) -> tuple[MultiVectors, NDArray[np.int64], MultiVectors | None]:
    """Return the documents, the positions of those with tokens, and the queries that have tokens.

    Raises
    ------
    ValueError
        For too few of either, or queries of another dimension or with a number that is not finite.
    """
    texts = as_multivectors(documents, "documents")
    filled = _with_tokens(texts, "documents", MIN_DOCUMENTS)
    if queries is None:
        return texts, filled, None
    checked = as_multivectors(queries, "queries")
    checked.require_dimension(texts.dimension, "queries", "documents")
    checked.require_finite("queries")
    kept = checked[_with_tokens(checked, "queries", MIN_QUERIES)]
    return texts, filled, MultiVectors(kept.tokens, kept.offsets)


def _with_tokens(texts: MultiVectors, name: str, minimum: int) -> NDArray[np.int64]:
    filled = np.flatnonzero(texts.lengths > 0)
    if len(filled) < minimum:
        instead = "Give more" if name == "documents" else "Give more, or none: windows of documents stand in"
        raise ValueError(f"tune needs at least {minimum} {name} with tokens, got {len(filled)}. {instead}.")
    return filled


def within_limits(
    encoders: list[EncoderCandidate],
    storages: Sequence[Storage],
    documents: int,
    max_bytes: int | None,
    max_floats: int | None,
) -> list[EncoderCandidate]:
    """Return the encoders whose vectors can be stored within the limits.

    Raises
    ------
    ValueError
        Where none can.
    """
    sizes = [
        min(storage.bytes_per_vector(each.floats, documents) for storage in storages) for each in encoders
    ]
    if max_bytes is not None:
        kept = [each for each, size in zip(encoders, sizes, strict=True) if size <= max_bytes]
        limit, smallest = f"max_bytes={max_bytes}", f"{min(sizes)} bytes"
    elif max_floats is not None:
        kept = [each for each in encoders if each.floats <= max_floats]
        limit, smallest = f"max_floats={max_floats}", f"{min(each.floats for each in encoders)} floats"
    else:
        return encoders
    if not kept:
        raise ValueError(
            f"No configuration is as small as {limit}: the smallest has {smallest}. Raise the limit."
        )
    return kept
