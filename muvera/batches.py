"""Documents that come a batch at a time, and a sample of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .vectors import MultiVectors, as_multivectors

__all__ = ["SAMPLED", "DocumentSample", "as_batches"]

#: Most documents of a sample.
SAMPLED = 4096

# Bytes that what is kept of them may take, and those of their tokens.
_BYTES, _TOKEN_BYTES = 256 << 20, 512 << 20

# A child of the configuration's seed; those of the random matrices have other keys.
_SAMPLING, _SHRINKING = 0xC0, 0xC3


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

    The same documents in the same order give the same sample, however they are batched.  Where their
    tokens would take too much memory, the sample becomes smaller.

    Parameters
    ----------
    floats : int
        What will be kept of each document, which bounds how many are sampled.
    seed : int
    """

    def __init__(self, floats: int, seed: int) -> None:
        self.size = max(1, min(SAMPLED, _BYTES // (4 * floats)))
        self._stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SAMPLING,)))
        self._shrinking = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SHRINKING,)))
        self._kept: list[NDArray[np.generic]] = []
        self._seen = self._token_bytes = 0

    def watch(self, batches: Iterable[MultiVectors]) -> Iterator[MultiVectors]:
        """Yield the batches, having taken a share of each."""
        for batch in batches:
            filled = np.flatnonzero(batch.lengths > 0)
            for i, draw in zip(filled.tolist(), self._stream.random(len(filled)).tolist(), strict=True):
                self._seen += 1
                place = len(self._kept) if self._seen <= self.size else int(draw * self._seen)
                if place < self.size:
                    # A copy: the batch itself must be free to go.
                    self._keep(place, np.array(batch[i]))
            yield batch

    def _keep(self, place: int, tokens: NDArray[np.generic]) -> None:
        self._token_bytes += tokens.nbytes - sum(old.nbytes for old in self._kept[place : place + 1])
        self._kept[place : place + 1] = [tokens]
        while self._token_bytes > _TOKEN_BYTES and len(self._kept) > 1:
            # Without any of them the sample is still a uniform one.
            dropped = int(self._shrinking.integers(len(self._kept)))
            self._token_bytes -= self._kept[dropped].nbytes
            self._kept[dropped] = self._kept[-1]
            del self._kept[-1]
            self.size = len(self._kept)

    def documents(self, dimension: int) -> MultiVectors:
        """Return the sample."""
        return MultiVectors.from_arrays(self._kept, dim=dimension)
