"""The paper's FDEs with cells of k-means instead of hyperplanes (MUVERA, figure 3).

Each repetition clusters tokens from other starting points.  A document's cell holds the
mean of its tokens, an empty one the token nearest to the cell's center; a query's cell
holds the sum of its tokens.  Both are projected at random, as in section 2.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from muvera import MultiVectors
from muvera.mips import make_search

from .base import Answers, Material, System

# Tokens that are clustered, and rounds of k-means.
_SAMPLE, _ROUNDS = 20_000, 10


class _Repetition(NamedTuple):
    """The centers of the cells, (cells, d), and the random projection, (d, d_proj)."""

    centers: NDArray[np.float32]
    projection: NDArray[np.float32]


class KMeansCells(System):
    """Exact search of the paper's FDEs with k-means cells.

    `build` has the paper's parameters: R_reps repetitions of 2**k_sim cells with d_proj
    floats each.
    """

    name: ClassVar[str] = "k_means_cells"

    def __init__(
        self, *, num_repetitions: int = 20, num_simhash_projections: int = 5, projection_dimension: int = 16
    ) -> None:
        self._repetitions = num_repetitions
        self._cells, self._columns = 1 << num_simhash_projections, projection_dimension

    def build(self, material: Material) -> None:
        """Cluster a sample of the documents' tokens, and encode all documents."""
        super().build(material)
        rng = np.random.default_rng(material.seed)
        tokens = self.documents.tokens
        picked = np.sort(rng.permutation(len(tokens))[:_SAMPLE])
        sample = tokens[picked].astype(np.float64)
        self._parts = [
            _Repetition(
                kmeans2(sample, self._cells, _ROUNDS, minit="points", rng=rng)[0].astype(np.float32),
                rng.choice(np.array([-1, 1], np.float32), (sample.shape[1], self._columns))
                / np.float32(np.sqrt(self._columns)),
            )
            for _ in range(self._repetitions)
        ]
        vectors = self._encoded(self.documents, sums=False)
        self._search = make_search("exact", vectors.shape[1])
        self._search.add(np.arange(len(vectors)), vectors, self.threads)

    def search(self, queries: MultiVectors, k: int) -> Answers:
        """Return the documents with the largest inner products, without times."""
        ids, scores = self._search.search(self._encoded(queries, sums=True), k, threads=self.threads)
        return Answers(ids, scores, np.full(len(queries), np.nan))

    def reads_tokens(self, **_: Any) -> bool:
        """Return False: nothing is ranked exactly."""
        return False

    def bytes_per_document(self) -> float:
        """Return the bytes of a stored vector."""
        return float(self._search.info()["bytes_per_vector"])

    def _encoded(self, texts: MultiVectors, sums: bool) -> NDArray[np.float32]:
        """Return the FDEs of documents, or of queries with `sums`."""
        width = self._cells * self._columns
        out = np.zeros((len(texts), self._repetitions * width), np.float32)
        tokens = np.asarray(texts.tokens, np.float32)
        bounds = list(zip(texts.offsets[:-1].tolist(), texts.offsets[1:].tolist(), strict=True))
        for number, (centers, projection) in enumerate(self._parts):
            # The nearest center by distance; the length of a token does not matter.
            nearness = tokens @ centers.T - np.square(centers).sum(axis=1) / 2
            projected, nearest = tokens @ projection, nearness.argmax(axis=1)
            block = out[:, number * width : (number + 1) * width].reshape(len(texts), self._cells, -1)
            for text, (start, stop) in enumerate(bounds):
                if start == stop:
                    continue
                counts = np.bincount(nearest[start:stop], minlength=self._cells)
                np.add.at(block[text], nearest[start:stop], projected[start:stop])
                if not sums:
                    closest = start + nearness[start:stop].argmax(axis=0)
                    means = block[text] / np.maximum(counts, 1)[:, np.newaxis]
                    block[text] = np.where(counts[:, np.newaxis] > 0, means, projected[closest])
        return out
