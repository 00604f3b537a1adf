"""SampleProfile: detect documents that differ from those that an encoder was fitted on.

Each document is counted at the direction nearest to its mean token (minus the sample's mean), and in an
interval of the cosine between the two.  The distance between added and sampled documents is the larger total
variation of the two histograms: 0 if they are equal and 1 if they are disjoint, minus the value expected by
chance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_kernel_arrays
from ..encoders.moment_blocks import mean_tokens
from ..utils.npy_files import load_npy

__all__ = ["DRIFTED", "SAMPLE_SIZE", "SampleProfile"]

#: Maximum number of documents in a profile.
SAMPLE_SIZE = 1024

#: Distance from which added documents get a warning.  Random halves of a collection have hardly any distance, parts
#: of different topics less than this, other collections more.
DRIFTED = 0.35

# Directions, intervals, and the fewest sampled and added documents to compute a distance from.
_DIRECTIONS, _INTERVALS, _LEAST = 32, 8, 50

_FILE = "vector_profile.npy"


class SampleProfile:
    """Counts of sampled and of added documents by direction and by interval.

    Parameters
    ----------
    directions : float32 (1 + B, dimension)
        The sample's mean, then the directions.
    edges : float64 (I - 1,)
        Edges of the intervals of cosines, ascending.
    sample, added : int64 (B + I,)
        Documents at each direction and in each interval.
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
        self._at = len(directions) - 1  # where the counts of intervals begin

    @classmethod
    def of(cls, documents: MultiVectors) -> SampleProfile:
        """Return the profile of a sample of documents with tokens."""
        means = _means(documents)
        center = means.mean(axis=0, dtype=np.float64).astype(np.float32)
        picked = np.random.default_rng(0).permutation(len(means))[:_DIRECTIONS]
        rest = means[picked] - center
        lengths = np.linalg.norm(rest, axis=1, keepdims=True)
        directions = np.concatenate([center[np.newaxis], rest / np.maximum(lengths, 1e-30)])
        none = np.zeros(len(picked) + _INTERVALS, np.int64)
        profile = cls(np.ascontiguousarray(directions, np.float32), np.zeros(_INTERVALS - 1), none, none)
        # A direction's own document is nearest to itself, which carries no information about others.
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
        counts = [
            np.bincount(nearest, minlength=self._at),
            np.bincount(intervals, minlength=len(self.edges) + 1),
        ]
        return np.concatenate(counts).astype(np.int64)

    def _nearest(self, means: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the nearest direction of each mean, and the cosine between them."""
        rest = means - self.directions[0]
        products = rest @ self.directions[1:].T
        lengths = np.maximum(np.linalg.norm(rest, axis=1), 1e-30)
        return products.argmax(axis=1), (products.max(axis=1) / lengths).astype(np.float32)

    @property
    def distance(self) -> float | None:
        """Distance of the added documents to the sample, 0 to 1; None while there are few of either."""
        at = self._at
        if min(self.added[:at].sum(), self.sample[:at].sum()) < _LEAST:
            return None
        return max(_distance(self.sample[:at], self.added[:at]), _distance(self.sample[at:], self.added[at:]))

    @property
    def warning(self) -> str | None:
        """A warning if the added documents differ from the sample, otherwise None."""
        distance = self.distance
        if distance is None or distance < DRIFTED:
            return None
        return (
            f"The {self.added[: self._at].sum()} documents that were added after the encoder was fitted differ from "
            f"those it was fitted on (distance {distance:.2f}; 0 is alike, 1 nothing in common), so recall may drop: "
            "rebuild() fits it on all documents. For a stream of changing documents use encoder='fde', which "
            "hardly depends on a sample."
        )

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the directions; return the counts."""
        np.save(folder / _FILE, self.directions)
        return {name: getattr(self, name).tolist() for name in ("edges", "sample", "added")}

    @classmethod
    def load(cls, folder: Path, counts: dict[str, Any], dimension: int) -> SampleProfile:
        """Load the files of :meth:`save`; raise ValueError or KeyError for damaged ones."""
        directions = load_npy(folder / _FILE, mmap=False)
        if directions.dtype != np.float32 or directions.ndim != 2 or directions.shape[1] != dimension:
            raise ValueError(
                f"{folder / _FILE} must be float32 (n, {dimension}), got {directions.dtype} {directions.shape}."
            )
        sample, added = (np.array(counts[name], np.int64) for name in ("sample", "added"))
        return cls(directions, np.array(counts["edges"], np.float64), sample, added)


def _distance(sample: NDArray[np.int64], added: NDArray[np.int64]) -> float:
    """Return the total variation of two distributions, minus the value expected by chance."""
    sampled, count = int(sample.sum()), int(added.sum())
    variation = 0.5 * float(np.abs(sample / sampled - added / count).sum())
    both = (sample + added) / (sampled + count)
    # Mean absolute difference of two shares of one distribution, nearly normal.
    variance = both * (1 - both) * (1 / sampled + 1 / count)
    chance = 0.5 * float(np.sqrt(2 * variance / np.pi).sum())
    return max(0.0, (variation - chance) / (1 - chance)) if chance < 1 else 0.0


def _means(documents: MultiVectors) -> NDArray[np.float32]:
    """Return the mean tokens, float32 (n, dimension)."""
    return mean_tokens((*as_kernel_arrays(documents), documents.offsets), 0, len(documents))
