"""Documents that come a batch at a time, and a sample of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .vectors import MultiVectors, as_multivectors

__all__ = ["DocumentSample", "as_batches"]

# Most documents of a sample, and the bytes that what is kept of them may take.
_DOCUMENTS, _BYTES = 4096, 256 << 20

# A child of the configuration's seed; those of the random matrices have other keys.
_SAMPLING = 0xC0


def as_batches(documents: Any) -> Iterator[MultiVectors]:
    """Return `documents` as collections: an iterable of them streams, all else is one."""
    if isinstance(documents, MultiVectors) or hasattr(documents, "ndim"):
        return iter([as_multivectors(documents)])
    values = iter(documents)
    first = next(values, None)
    if first is None:
        return iter([])
    if isinstance(first, MultiVectors):
        return chain([first], values)
    return iter([MultiVectors.from_arrays(chain([first], values))])


class DocumentSample:
    """A uniform sample of the documents that pass by, in bounded memory.

    The same documents in the same order give the same sample, however they are batched.

    Parameters
    ----------
    floats : int
        What will be kept of each document, which bounds how many are sampled.
    seed : int
    """

    def __init__(self, floats: int, seed: int) -> None:
        self.size = max(1, min(_DOCUMENTS, _BYTES // (4 * floats)))
        self._stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SAMPLING,)))
        self._kept: list[NDArray[np.generic]] = []
        self._seen = 0

    def watch(self, batches: Iterable[MultiVectors]) -> Iterator[MultiVectors]:
        """Yield the batches, having taken a share of each."""
        for batch in batches:
            filled = np.flatnonzero(batch.lengths > 0)
            for i, draw in zip(filled.tolist(), self._stream.random(len(filled)).tolist(), strict=True):
                self._seen += 1
                place = len(self._kept) if self._seen <= self.size else int(draw * self._seen)
                if place < self.size:
                    # A copy: the batch itself must be free to go.
                    self._kept[place : place + 1] = [np.array(batch[i])]
            yield batch

    def documents(self, dimension: int) -> MultiVectors:
        """Return the sample."""
        return MultiVectors.from_arrays(self._kept, dim=dimension)
