"""Generate documents from real ones; each is a function of its number and the seed.

A generated document has a center: the mean token of all real documents plus a weighted sum of the deviations
of three documents' means.  Its tokens lie around the center: each is the deviation of a real token from its
document's mean, plus a small part of another token's deviation.  The squared weights of each sum add to 1, so
documents and tokens vary as in the real collection.  Documents that are near each other have the same real
document with the largest weight, like texts about the same subject.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors
from muvera.kernels.jit import kernel
from muvera.utils.parallel import run_in_ranges, split_by_weight

__all__ = ["BLOCK", "LONGEST", "SHORTEST", "GrownDocuments"]

#: Minimum and maximum number of tokens of a generated document, and number of documents per batch.
SHORTEST, LONGEST, BLOCK = 48, 80, 2048

# Weights of the three documents' means, and of a token's own and another token's deviation.
_MEANS = np.array([0.75, 0.55, 0.37], np.float32)
_OWN, _OTHER = np.float32(0.9), np.float32(0.436)

# Number of documents that a thread generates at a time.
_TASK = 256


@dataclass(frozen=True, eq=False)
class GrownDocuments:
    """The unchanged real documents, followed by documents generated from them with a seed."""

    real: MultiVectors
    seed: int = 0

    def batches(self, stop: int, start: int = 0, threads: int | None = None) -> Iterator[MultiVectors]:
        """Yield the documents start..stop in batches, float16, with their numbers as ids."""
        offsets = np.asarray(self.real.offsets, np.int64)
        filled = np.flatnonzero(self.real.lengths > 0)
        tokens = np.asarray(self.real.tokens, np.float32)
        owner = np.repeat(np.arange(len(self.real)), self.real.lengths)
        means = np.zeros((len(self.real), self.real.dimension))
        np.add.at(means, owner, tokens)
        means /= np.maximum(self.real.lengths, 1)[:, np.newaxis]
        mean = tokens.mean(axis=0, dtype=np.float64)
        within = (tokens - means[owner]).astype(np.float32)
        between = (means - mean).astype(np.float32)
        for first in range(start, stop, BLOCK):
            count = min(BLOCK, stop - first)
            lengths = np.empty(count, np.int64)
            draw_lengths(first, self.seed, SHORTEST, LONGEST, lengths)
            at = np.concatenate([[0], np.cumsum(lengths)])
            made = np.empty((at[-1], self.real.dimension), np.float32)

            def work(
                low: int,
                high: int,
                first: int = first,
                at: NDArray[np.int64] = at,
                made: NDArray[np.float32] = made,
            ) -> None:
                make_documents(
                    within, between, mean.astype(np.float32), offsets, filled, first, self.seed, low, high, at,
                    _MEANS, _OWN, _OTHER, made,
                )  # fmt: skip

            run_in_ranges(work, split_by_weight(at, 1 << 40, _TASK), threads)
            halves = made.astype(np.float16)
            ids = np.arange(first, first + count)
            own = max(0, min(len(self.real) - first, count))
            rest = MultiVectors.from_flat(halves[at[own] :], lengths[own:])
            if own:
                begin, end = offsets[first], offsets[first + own]
                real = MultiVectors.from_flat(
                    tokens[begin:end].astype(np.float16), self.real.lengths[first : first + own]
                )
                rest = MultiVectors.concatenate([real, rest]) if own < count else real
            yield rest.with_ids(ids)


@kernel
def next_draw(state):  # type: ignore[no-untyped-def]
    """Return 64 random bits of a state (splitmix64)."""
    mixed = state * numba.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> numba.uint64(30))) * numba.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> numba.uint64(27))) * numba.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> numba.uint64(31))


@kernel
def below(state, bound):  # type: ignore[no-untyped-def]
    """Return a random number 0 .. bound - 1."""
    return np.int64(((next_draw(state) >> numba.uint64(32)) * numba.uint64(bound)) >> numba.uint64(32))


@kernel
def first_state(document, seed):  # type: ignore[no-untyped-def]
    """Return the initial random state of a document."""
    return next_draw(numba.uint64(document) + (numba.uint64(seed) << numba.uint64(40)))


@kernel
def draw_lengths(first, seed, shortest, longest, out):  # type: ignore[no-untyped-def]
    """Write the numbers of tokens of the documents from `first` on."""
    for i in range(out.shape[0]):
        out[i] = shortest + below(first_state(first + i, seed), longest - shortest + 1)


@kernel
def make_documents(  # type: ignore[no-untyped-def]
    within, between, mean, offsets, filled, first, seed, low, high, at, weights, own, other, out
):
    """Write the tokens of the documents first + low .. first + high to their rows of `out`."""
    dimension = within.shape[1]
    parents = np.empty(weights.shape[0], np.int64)
    center = np.empty(dimension, np.float32)
    for i in range(low, high):
        state = first_state(first + i, seed)
        one = numba.uint64(1)
        center[:] = mean
        for j in range(weights.shape[0]):
            state += one
            parents[j] = filled[below(state, filled.shape[0])]
            for d in range(dimension):
                center[d] += weights[j] * between[parents[j], d]
        length = at[i + 1] - at[i]
        for t in range(length):
            parent = parents[0] if 2 * t < length else parents[1]
            state += one
            a = offsets[parent] + below(state, offsets[parent + 1] - offsets[parent])
            state += one
            stranger = filled[below(state, filled.shape[0])]
            state += one
            b = offsets[stranger] + below(state, offsets[stranger + 1] - offsets[stranger])
            norm = np.float32(0)
            row = out[at[i] + t]
            for d in range(dimension):
                value = center[d] + own * within[a, d] + other * within[b, d]
                row[d] = value
                norm += value * value
            scale = np.float32(1) / np.sqrt(max(norm, np.float32(1e-12)))
            for d in range(dimension):
                row[d] *= scale
