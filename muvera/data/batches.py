"""Documents in batches.

Bounded batches, samples of streams, windows as pseudo-queries, and sources of PLAID
codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..utils.checks import given, require_int
from .multivectors import MultiVectors, MultiVectorsLike, as_multivectors

#: Documents as users pass them: one collection, or an iterable of collections.
DocumentsLike = MultiVectorsLike | Iterable[MultiVectors]

MAX_FIT_DOCUMENTS = 4096  # in a sample

# Maximum bytes of the vectors that an encoder makes from the sample.
_BYTES = 256 << 20

# Maximum bytes of the sample's tokens.
_TOKEN_BYTES = 512 << 20

_BLOCK = 65536  # rows that are copied to float64 at a time

# Spawn keys of the configuration's seed, which no random matrix uses: for drawing the
# sample,
_SAMPLING = 0xC0

# and for dropping documents once the sample takes too much memory.
_SHRINKING = 0xC3


def token_batches(offsets: NDArray[np.int64], max_tokens: int) -> Iterator[tuple[int, int]]:
    """Yield runs (start, stop) of consecutive documents.

    A run has at most `max_tokens` tokens; a longer document is alone.  An empty
    collection yields one empty run, so that its batch still has the dimension.
    """
    require_int("max_tokens", max_tokens, 1)
    count = len(offsets) - 1
    if count == 0:
        yield 0, 0
    start = 0
    while start < count:
        stop = int(np.searchsorted(offsets, offsets[start] + max_tokens, side="right")) - 1
        # Empty documents add no tokens: without this limit, any number of them could
        # form one run.
        stop = min(max(stop, start + 1), start + max_tokens)
        yield start, stop
        start = stop


def collection_batches(collection: MultiVectors, max_tokens: int) -> Iterator[MultiVectors]:
    """Yield consecutive slices of a collection, which share its memory.

    They are split as by :func:`token_batches`, and have ids only if the collection has
    some.
    """
    for start, stop in token_batches(collection.offsets, max_tokens):
        part = collection[start:stop]
        yield part if collection.has_ids else MultiVectors(part.tokens, part.offsets)


@runtime_checkable
class CodedSource(Protocol):
    """Source of documents whose tokens are PLAID codes.

    A code is a centroid number and packed residuals.
    """

    centroids: NDArray[np.float32]
    #: Value that each residual bucket adds to a coordinate, float32 (2 ** nbits,).
    bucket_weights: NDArray[np.float32]

    def coded_batches(
        self, max_tokens: int
    ) -> Iterator[tuple[MultiVectors, NDArray[Any], NDArray[np.uint8]]]:
        """Yield documents with their codes.

        A batch has documents, centroid numbers (n_tokens,) and packed residuals
        (n_tokens, bytes), of at most `max_tokens` tokens; a longer document is alone.
        """
        ...


def coded_source(documents: object) -> CodedSource | None:
    """Return `documents`, or the source it wraps, if that has PLAID codes.

    Otherwise None.
    """
    source = getattr(documents, "source", documents)
    return source if isinstance(source, CodedSource) else None


def as_batches(documents: DocumentsLike) -> Iterator[MultiVectors]:
    """Return `documents`, which are read once, as an iterator of collections.

    It yields the given collections, or one collection.  Raise TypeError if `documents`
    are not token vectors.
    """
    if isinstance(documents, MultiVectors) or hasattr(documents, "ndim"):
        return iter([as_multivectors(documents)])
    if isinstance(documents, (str, bytes)) or not isinstance(documents, Iterable):
        raise TypeError(
            f"documents must be token vectors, got {given(documents)}. Read a saved folder with "
            "MultiVectors.load; encode texts with your model first."
        )
    values: Iterator[Any] = iter(documents)
    head = list(islice(values, 1))
    values = chain(head, values)
    if not head or isinstance(head[0], MultiVectors):
        return values
    return iter([MultiVectors.from_arrays(values)])


class DocumentSample:
    """A uniform sample of streamed documents in bounded memory.

    It is drawn by reservoir sampling, and does not depend on the division into batches.
    It has at most `most` documents, fewer if their tokens, or the vectors of `floats`
    floats that an encoder makes of them, would take too much memory.
    """

    def __init__(self, floats: int, seed: int, most: int = MAX_FIT_DOCUMENTS) -> None:
        self.size = max(1, min(most, _BYTES // (4 * floats)))
        self._stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SAMPLING,)))
        self._shrinking = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SHRINKING,)))
        self._sampled: list[NDArray[np.generic]] = []
        self._seen = self._token_bytes = 0

    def sample_while_yielding(self, batches: Iterable[MultiVectors]) -> Iterator[MultiVectors]:
        """Yield the batches unchanged, after sampling from each."""
        for batch in batches:
            filled = np.flatnonzero(batch.lengths > 0)
            for i, draw in zip(filled.tolist(), self._stream.random(len(filled)).tolist(), strict=True):
                self._seen += 1
                slot = len(self._sampled) if self._seen <= self.size else int(draw * self._seen)
                if slot < self.size:
                    # A copy, so that the batch can be freed.
                    self._store(slot, np.array(batch[i]))
            yield batch

    def _store(self, slot: int, tokens: NDArray[np.generic]) -> None:
        self._token_bytes += tokens.nbytes - sum(old.nbytes for old in self._sampled[slot : slot + 1])
        self._sampled[slot : slot + 1] = [tokens]
        while self._token_bytes > _TOKEN_BYTES and len(self._sampled) > 1:
            # Dropping any of them leaves a uniform sample.
            dropped = int(self._shrinking.integers(len(self._sampled)))
            self._token_bytes -= self._sampled[dropped].nbytes
            self._sampled[dropped] = self._sampled[-1]
            del self._sampled[-1]
            self.size = len(self._sampled)

    def documents(self, dimension: int) -> MultiVectors:
        """Return copies of the documents in the sample so far, without ids.

        The `dimension` is needed if the sample has no tokens.
        """
        return MultiVectors.from_arrays(self._sampled, dimension=dimension)


def fit_share(documents: int) -> float:
    """Return the share of a sample to fit encoders on, from 0.5 to 0.75.

    `documents` is the number of documents with tokens in the collection.  Quality is
    measured on the rest.  With less than half, the fit would differ too much from an
    index's fit on up to MAX_FIT_DOCUMENTS documents.
    """
    return min(0.75, max(0.5, MAX_FIT_DOCUMENTS / documents))


def valid_batches(batches: Iterable[MultiVectors], dimension: int) -> Iterator[MultiVectors]:
    """Yield batches of documents to fit an encoder on.

    Raise ValueError if there are no tokens, or a batch has another dimension or a
    number that is not finite.
    """
    tokens = 0
    for batch in batches:
        batch.require_dimension(dimension, "documents", "this encoder")
        batch.require_finite("documents")
        tokens += batch.num_tokens
        yield batch
    if tokens == 0:
        raise ValueError("fit needs documents with at least one token, got 0 tokens.")


def mean_token(batches: Iterable[MultiVectors], dimension: int) -> NDArray[np.float32]:
    """Return the mean of all tokens of valid batches, with the shape (dimension,)."""
    total = np.zeros(dimension)
    count = 0
    for batch in batches:
        for start in range(0, batch.num_tokens, _BLOCK):
            total += batch.tokens[start : start + _BLOCK].astype(np.float64).sum(axis=0)
        count += batch.num_tokens
    return np.asarray(total / count, np.float32)


def pseudo_queries(
    documents: MultiVectors, count: int, length: int, rng: np.random.Generator
) -> tuple[MultiVectors, NDArray[np.int64]]:
    """Cut windows of `length` tokens out of documents, as queries.

    Return the windows, and the positions of their documents, ascending.  Each of at
    most `count` windows comes from another document; a shorter document is a window as
    a whole.

    With their documents excluded, windows behave much like real queries: easier with a
    model that adds a query prefix, harder on long documents.
    """
    sources = np.sort(rng.permutation(len(documents))[:count])
    lengths = np.minimum(documents.lengths[sources], length)
    first = documents.offsets[sources] + rng.integers(0, documents.lengths[sources] - lengths + 1)
    windows = [documents.tokens[a : a + n] for a, n in zip(first.tolist(), lengths.tolist(), strict=True)]
    return MultiVectors.from_arrays(windows, dimension=documents.dimension), sources
