"""Split documents into batches of bounded size; sources of documents with PLAID codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..utils.checks import require_int
from .multivectors import MultiVectors


def token_batches(offsets: NDArray[np.int64], max_tokens: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of consecutive runs of documents with at most `max_tokens` tokens each.

    A longer document is a run by itself.  An empty collection yields one empty run, so that its batch still has the
    dimension.
    """
    require_int("max_tokens", max_tokens, 1)
    count = len(offsets) - 1
    if count == 0:
        yield 0, 0
    start = 0
    while start < count:
        stop = int(np.searchsorted(offsets, offsets[start] + max_tokens, side="right")) - 1
        # Empty documents add no tokens: without this limit, any number of them could form one run.
        stop = min(max(stop, start + 1), start + max_tokens)
        yield start, stop
        start = stop


def collection_batches(collection: MultiVectors, max_tokens: int) -> Iterator[MultiVectors]:
    """Yield consecutive slices of `collection` that share its memory, split as by :func:`token_batches`."""
    for start, stop in token_batches(collection.offsets, max_tokens):
        part = collection[start:stop]
        yield part if collection.has_ids else MultiVectors(part.tokens, part.offsets)


@runtime_checkable
class CodedSource(Protocol):
    """Source of documents whose tokens are stored as centroid numbers and packed residuals."""

    centroids: NDArray[np.float32]
    #: Value that each residual bucket adds to a coordinate, float32 (2 ** nbits,).
    bucket_weights: NDArray[np.float32]

    def coded_batches(
        self, max_tokens: int
    ) -> Iterator[tuple[MultiVectors, NDArray[Any], NDArray[np.uint8]]]:
        """Yield documents, centroid numbers (n_tokens,) and packed residuals (n_tokens, bytes)."""
        ...


def coded_source(documents: Any) -> CodedSource | None:
    """Return `documents`, or the source it wraps, if that has PLAID codes; otherwise None."""
    source = getattr(documents, "source", documents)
    return source if isinstance(source, CodedSource) else None
