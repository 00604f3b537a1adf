"""PLAID: centroids, inverted lists and compressed residuals, through fast-plaid on the processor."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors

from ..peers import PEERS, Worker, save_texts
from .base import Answers, Family, Material

__all__ = ["Plaid"]


class Plaid:
    """fast-plaid in an environment (with torch, some gigabytes) and a process of its own.

    It ranks by the similarities of its decompressed tokens and reads no stored token vector; what it
    returns is not ranked again.  A search runs on one thread, the build on as many as the runner allows.
    To tune it: `nbits` bounds what can be reached, then `n_ivf_probe` and `n_full_scores`
    trade recall for time.

    Parameters
    ----------
    nbits : int
        Bits of a residual's coordinate, 2 or 4: more raise recall and size.
    kmeans_niters : int
        Rounds of k-means; more raise recall a little and the build's time.
    max_points_per_centroid : int
        Tokens per centroid that k-means trains with; more raise the build's time.
    n_samples_kmeans : int, optional
        Documents whose tokens are sampled for k-means; default: fast-plaid's own choice.
    """

    name: ClassVar[str] = "plaid"
    family: ClassVar[Family] = "peer"

    def __init__(
        self,
        *,
        nbits: int = 4,
        kmeans_niters: int = 4,
        max_points_per_centroid: int = 256,
        n_samples_kmeans: int | None = None,
    ) -> None:
        self._settings: dict[str, Any] = {
            "nbits": nbits,
            "kmeans_niters": kmeans_niters,
            "max_points_per_centroid": max_points_per_centroid,
            "n_samples_kmeans": n_samples_kmeans,
        }
        self._worker: Worker | None = None

    def build(self, material: Material) -> None:
        """Make the environment where it is missing, and the index in the scratch folder."""
        self._folder, self._count = material.folder, len(material.documents)
        self._index = material.folder / "index"
        save_texts(material.folder, "documents", list(material.documents))
        self._worker = Worker(PEERS["fast-plaid"], material.folder, material.cache)
        self._worker.time(
            "build",
            index=str(self._index),
            seed=material.seed,
            threads=material.threads,
            **self._settings,
        )
        for name in ("documents.npy", "documents_lengths.npy"):
            (material.folder / name).unlink()

    def search(
        self,
        queries: MultiVectors,
        positions: NDArray[np.int64],
        k: int,
        *,
        n_ivf_probe: int = 8,
        n_full_scores: int = 4096,
    ) -> Answers:
        """Answer queries one at a time.

        Parameters
        ----------
        queries, positions, k
            As :class:`experiments.systems.base.System` says.
        n_ivf_probe : int
            Inverted lists that a query token reads; recall and time rise with it.
        n_full_scores : int
            Documents that are scored by their centroids; a quarter of them are decompressed.
        """
        assert self._worker is not None  # for the type checker: it is built first
        save_texts(self._folder, "queries", [tokens.astype(np.float32) for tokens in queries])
        found, times = self._worker.each(
            "search",
            "queries",
            self._folder,
            index=str(self._index),
            top_k=k,
            n_ivf_probe=n_ivf_probe,
            n_full_scores=n_full_scores,
        )
        return Answers(found[:, :, 0].astype(np.int64), found[:, :, 1].astype(np.float32), times[0])

    def bytes_per_document(self) -> float:
        """Return the bytes of the index's files, which is all that a search needs.

        Compressed tokens are in it, so that unlike with rerankers no token store is needed on top.
        Not counted are the ``merged_*`` files, copies of the chunks that opening an index makes.
        """
        files = [path for path in self._index.iterdir() if not path.name.startswith("merged_")]
        return sum(path.stat().st_size for path in files) / self._count

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.close()
