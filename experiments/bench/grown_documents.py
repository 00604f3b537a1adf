"""Generate documents from real ones; each is a function of its number and the seed.

A generated document has a center: the mean token of all real documents plus a weighted
sum of the deviations of three documents' means.  Each of its tokens is the center, plus
a real token's deviation from its document's mean, plus a small part of another
deviation.  The squared weights of each sum add to 1, so documents and tokens vary as in
the real collection.  Documents that give the same real document the largest weight are
near each other, like texts about the same subject.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors

#: Minimum and maximum number of tokens of a generated document, and number of documents
#: generated at a time.
SHORTEST, LONGEST, BLOCK = 48, 80, 2048

# Weights of the three documents' means, and of a token's own and another token's
# deviation.
_MEANS = np.array([0.75, 0.55, 0.37], np.float32)
_OWN, _OTHER = np.float32(0.9), np.float32(0.436)


@dataclass(frozen=True, eq=False)
class GrownDocuments:
    """The real documents, followed by documents generated from them with a seed."""

    real: MultiVectors
    seed: int = 0

    def batches(self, stop: int, start: int = 0) -> Iterator[MultiVectors]:
        """Yield the documents start..stop in float16 batches, with numbers as ids."""
        real = MultiVectors.from_flat(self.real.tokens.astype(np.float16), self.real.lengths)
        for first in range(start // BLOCK * BLOCK, stop, BLOCK):
            batch = real[first : first + BLOCK]
            if first + len(batch) < min(stop, first + BLOCK):
                batch = MultiVectors.concatenate([batch, self._made(first // BLOCK)[len(batch) :]])
            low, high = max(start, first), min(stop, first + BLOCK)
            yield batch[low - first : high - first].with_ids(np.arange(low, high))

    @cached_property
    def _moments(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Means and deviations of the real documents.

        They are the mean token, the deviations of document means from it, and the
        deviations of tokens from their document's mean.
        """
        tokens = np.asarray(self.real.tokens, np.float32)
        owner = np.repeat(np.arange(len(self.real)), self.real.lengths)
        means = np.zeros((len(self.real), self.real.dimension))
        np.add.at(means, owner, tokens)
        means /= np.maximum(self.real.lengths, 1)[:, np.newaxis]
        mean = tokens.mean(axis=0, dtype=np.float64)
        within = (tokens - means[owner]).astype(np.float32)
        return mean.astype(np.float32), (means - mean).astype(np.float32), within

    def _made(self, block: int) -> MultiVectors:
        """Generate the documents of a block."""
        mean, between, within = self._moments
        stream = np.random.default_rng([self.seed, block])
        filled = np.flatnonzero(self.real.lengths > 0)
        lengths = stream.integers(SHORTEST, LONGEST + 1, BLOCK)
        parents = stream.choice(filled, (BLOCK, len(_MEANS)))
        centers = mean + np.einsum("p,ipj->ij", _MEANS, between[parents])
        document = np.repeat(np.arange(BLOCK), lengths)
        position = np.arange(len(document)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        second = 2 * position >= lengths[document]  # half of the tokens use deviations of the second document
        owners = np.where(second, parents[document, 1], parents[document, 0])
        tokens = centers[document]
        for weight, source in ((_OWN, owners), (_OTHER, stream.choice(filled, len(document)))):
            offset = stream.integers(0, self.real.lengths[source])
            tokens += weight * within[np.asarray(self.real.offsets)[source] + offset]
        tokens /= np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), np.float32(1e-6))
        return MultiVectors.from_flat(tokens.astype(np.float16), lengths)
