"""SampleProfile: whether documents that came later are like those that an encoder learned from.

A document falls to the nearest of some directions by its mean token, less the sample's mean, and to one of
some intervals by the cosine between both.  The distance of the added documents to the sampled ones is the
total variation of either distribution, the larger one: 0 for equal and 1 for disjoint distributions, less
what so many documents of one distribution differ by chance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_kernel_arrays
from ..kernels.moments import document_moments
from ..utils.npy_files import load_npy

__all__ = ["DRIFTED", "SAMPLE_SIZE", "SampleProfile"]

#: Documents that a profile is made of, at most.
SAMPLE_SIZE = 1024

#: From this distance on the added documents are worth a warning: random halves of a collection have
#: hardly any, parts of different topics less, and other collections more.
DRIFTED = 0.35

# Directions and intervals that documents fall to, and sampled and added documents from which on their
# distance says something.
_DIRECTIONS, _INTERVALS, _LEAST = 32, 8, 50

_FILE = "vector_profile.npy"


class SampleProfile:
    """How documents are distributed over directions and intervals: sampled ones, and those added since.

    Parameters
    ----------
    directions : float32 (1 + B, dimension)
        The sample's mean, then the directions.
    edges : float64 (I - 1,)
        Between the intervals of cosines, ascending.
    sample, added : int64 (B + I,)
        Documents of each kind that fell to each direction and to each interval.
    """

    def __init__(
        self,
        directions: NDArray[np.float32],
        edges: NDArray[np.float64],
        sample: NDArray[np.int64],
        added: NDArray[np.int64],
    ) -> None:
        wanted = len(directions) + len(edges)
        if directions.ndim != 2 or sample.shape != (wanted,) or added.shape != (wanted,):
            raise ValueError(
                f"A profile of {len(directions) - 1} directions and {len(edges) + 1} intervals has {wanted} "
                f"counts, got {len(sample)} and {len(added)}."
            )
        self.directions, self.edges, self.sample, self.added = directions, edges, sample, added

    @classmethod
    def of(cls, documents: MultiVectors) -> SampleProfile:
        """Return the profile of a sample of documents with tokens, in random order or not."""
        means = _means(documents)
        center = means.mean(axis=0, dtype=np.float64).astype(np.float32)
        picked = np.random.default_rng(0).permutation(len(means))[:_DIRECTIONS]
        rest = means[picked] - center
        lengths = np.linalg.norm(rest, axis=1, keepdims=True)
        directions = np.concatenate([center[np.newaxis], rest / np.maximum(lengths, 1e-30)])
        none = np.zeros(len(picked) + _INTERVALS, np.int64)
        profile = cls(
            np.ascontiguousarray(directions, np.float32), np.zeros(_INTERVALS - 1), none, none.copy()
        )
        # A direction's own document is nearest to itself, which tells nothing of others.
        others = np.delete(means, picked, axis=0) if len(means) > len(picked) else means
        cosines = profile._nearest(others)[1]
        profile.edges = np.quantile(cosines.astype(np.float64), np.arange(1, _INTERVALS) / _INTERVALS)
        profile.sample = profile._counts(others)
        return profile

    def count(self, documents: MultiVectors) -> None:
        """Count documents with tokens as added ones."""
        self.added = self.added + self._counts(_means(documents))

    def _counts(self, means: NDArray[np.float32]) -> NDArray[np.int64]:
        nearest, cosines = self._nearest(means)
        intervals = np.searchsorted(self.edges, cosines, side="right")
        counted = [
            np.bincount(nearest, minlength=len(self.directions) - 1),
            np.bincount(intervals, minlength=len(self.edges) + 1),
        ]
        return np.concatenate(counted).astype(np.int64)

    def _nearest(self, means: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return each one's nearest direction, and the cosine between them."""
        rest = means - self.directions[0]
        products = rest @ self.directions[1:].T
        lengths = np.maximum(np.linalg.norm(rest, axis=1), 1e-30)
        return products.argmax(axis=1), (products.max(axis=1) / lengths).astype(np.float32)

    @property
    def distance(self) -> float | None:
        """Distance of the added documents to the sample, 0 to 1; None while there are few of either."""
        at = len(self.directions) - 1
        if min(self._num_added, self.sample[:at].sum()) < _LEAST:
            return None
        return max(_distance(self.sample[:at], self.added[:at]), _distance(self.sample[at:], self.added[at:]))

    @property
    def _num_added(self) -> int:
        return int(self.added[: len(self.directions) - 1].sum())

    @property
    def warning(self) -> str | None:
        """A sentence where the added documents are unlike the sample."""
        distance = self.distance
        if distance is None or distance < DRIFTED:
            return None
        return (
            f"The {self._num_added} documents that came since the encoder's maps were learned are unlike "
            f"those that they were learned from (distance {distance:.2f}; 0 is alike, 1 nothing in common), and "
            "may be found less well: rebuild() learns the maps from all. A stream of documents of changing kinds "
            "is better searched through FDEs (preset 'fde'), which hardly depend on a sample."
        )

    # -- keeping --------------------------------------------------------------

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the directions; return the counts."""
        np.save(folder / _FILE, self.directions)
        return {
            "edges": self.edges.tolist(),
            "sample": self.sample.tolist(),
            "added": self.added.tolist(),
        }

    @classmethod
    def load(cls, folder: Path, counts: dict[str, Any]) -> SampleProfile:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError, KeyError
            For a damaged file, or counts that do not fit it.
        """
        directions = load_npy(folder / _FILE, mmap=False)
        sample, added = (np.array(counts[name], np.int64) for name in ("sample", "added"))
        return cls(directions, np.array(counts["edges"], np.float64), sample, added)


def _distance(sample: NDArray[np.int64], added: NDArray[np.int64]) -> float:
    """Return the total variation of two distributions, less what is to be expected by chance."""
    sampled, count = int(sample.sum()), int(added.sum())
    found = 0.5 * float(np.abs(sample / sampled - added / count).sum())
    both = (sample + added) / (sampled + count)
    # Mean absolute difference of two shares of one distribution, nearly normal.
    variance = both * (1 - both) * (1 / sampled + 1 / count)
    chance = 0.5 * float(np.sqrt(2 * variance / np.pi).sum())
    return max(0.0, (found - chance) / (1 - chance)) if chance < 1 else 0.0


def _means(documents: MultiVectors) -> NDArray[np.float32]:
    """Return the mean tokens, float32 (n, dimension)."""
    out = np.zeros((len(documents), documents.dimension + 1), np.float32)
    document_moments(*as_kernel_arrays(documents), documents.offsets, 0, len(documents), 0, False, out)
    return np.ascontiguousarray(out[:, :-1])
