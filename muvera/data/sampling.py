"""Samples of documents that come in batches, their mean token, and windows of them as pseudo-queries."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.checks import given
from .multivectors import MultiVectors
from .token_input import as_multivectors

__all__ = [
    "MAX_FIT_DOCUMENTS",
    "DocumentSample",
    "as_batches",
    "fit_share",
    "mean_token",
    "pseudo_queries",
]

#: Most documents of a sample.
MAX_FIT_DOCUMENTS = 4096

# Bytes that what is kept of them may take, and those of their tokens.
_BYTES, _TOKEN_BYTES = 256 << 20, 512 << 20

# Least and largest share of a sample that encoders are fitted on: from less than half they would
# learn too little to stand for a fit on MAX_FIT_DOCUMENTS, and queries are cut out of the others.
_MIN_FIT_SHARE, _MAX_FIT_SHARE = 0.5, 0.75

# Rows added up at a time: float64 copies of a block, not of the collection.
_BLOCK = 65536

# A child of the configuration's seed; those of the random matrices have other keys.
_SAMPLING, _SHRINKING = 0xC0, 0xC3


def as_batches(documents: Any) -> Iterator[MultiVectors]:
    """Return `documents` as collections: an iterable of them streams, all else is one.

    Raises
    ------
    TypeError
        For a text or a path instead of vectors.
    """
    if isinstance(documents, (str, bytes, os.PathLike)):
        kind = "path" if isinstance(documents, os.PathLike) else "text"
        raise TypeError(
            f"documents must be token vectors, got the {kind} {given(documents)}. Read a saved folder with "
            "MultiVectors.load; encode texts with your model first."
        )
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
    most : int
        Documents at most.
    """

    def __init__(self, floats: int, seed: int, most: int = MAX_FIT_DOCUMENTS) -> None:
        self.size = max(1, min(most, _BYTES // (4 * floats)))
        self._stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SAMPLING,)))
        self._shrinking = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SHRINKING,)))
        self._kept: list[NDArray[np.generic]] = []
        self._seen = self._token_bytes = 0

    def sample_while_yielding(self, batches: Iterable[MultiVectors]) -> Iterator[MultiVectors]:
        """Yield the batches after a share of each was taken."""
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
        """Return the sample of the documents so far."""
        return MultiVectors.from_arrays(self._kept, dimension=dimension)


def fit_share(documents: int) -> float:
    """Return the share of a sample to fit encoders on where quality is measured on the sample.

    Parameters
    ----------
    documents : int
        Documents of the whole collection, of which an index fits on up to MAX_FIT_DOCUMENTS.

    Examples
    --------
    >>> fit_share(1_000), fit_share(6_000), fit_share(1_000_000)
    (0.75, 0.6826666666666666, 0.5)
    """
    return min(_MAX_FIT_SHARE, max(_MIN_FIT_SHARE, MAX_FIT_DOCUMENTS / documents))


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
        batch.require_dimension(dimension, "documents", "this encoder")
        batch.require_finite("documents")
        for start in range(0, batch.num_tokens, _BLOCK):
            total += batch.tokens[start : start + _BLOCK].astype(np.float64).sum(axis=0)
        count += batch.num_tokens
    if count == 0:
        raise ValueError("fit needs documents with at least one token, and these have none.")
    return np.asarray(total / count, np.float32)


def pseudo_queries(
    documents: MultiVectors, count: int, length: int, rng: np.random.Generator
) -> tuple[MultiVectors, NDArray[np.int64]]:
    """Cut windows of consecutive tokens out of documents, to stand in for queries.

    Their tokens come from the document encoder, so that they miss whatever sets a model's
    queries apart.  With the own document left out they are near to real queries, and not on
    one side of them: easier on a model with a query prefix, harder on long documents.

    Parameters
    ----------
    documents : MultiVectors
        Each with a token.
    count : int
        At most the number of documents; each gives one window at most.
    length : int
        Tokens of a window; a shorter document gives all that it has.
    rng : numpy Generator

    Returns
    -------
    queries : MultiVectors
    own : int64 (count,)
        The document that each was cut out of, which would match it perfectly.
    """
    own = np.sort(rng.permutation(len(documents))[:count])
    lengths = np.minimum(documents.lengths[own], length)
    first = documents.offsets[own] + rng.integers(0, documents.lengths[own] - lengths + 1)
    windows = [documents.tokens[a : a + n] for a, n in zip(first.tolist(), lengths.tolist(), strict=True)]
    return MultiVectors.from_arrays(windows, dimension=documents.dimension), own
