"""PLAID: centroids, inverted lists and compressed residuals, through fast-plaid on the processor."""

from __future__ import annotations

from typing import Any, ClassVar

from muvera import MultiVectors

from .base import Answers, Material
from .worker_system import WorkerSystem

__all__ = ["Plaid"]


class Plaid(WorkerSystem):
    """fast-plaid in an environment (with torch, some gigabytes) and a process of its own.

    It ranks by the similarities of its decompressed tokens.  A search runs on one thread, the build on as
    many as the runner allows.  Its arithmetic is of halves, which few processors have: a GPU is what it
    is made for.  To tune it: `nbits` bounds what its own ranking can reach; `n_full_scores` decides most of
    a query's time, so it should be swept from some times k upwards and not be left at fast-plaid's default;
    and `candidates` ranks exactly what it finds, as the other systems do.

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
    library: ClassVar[str] = "fast-plaid"

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

    def build(self, material: Material) -> None:
        """Make the index in the scratch folder."""
        super().build(material)
        self._index = material.folder / "index"
        self.build_of(material, index=str(self._index), **self._settings)

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        n_ivf_probe: int = 8,
        n_full_scores: int = 4096,
        candidates: int = 0,
    ) -> Answers:
        """Answer queries one at a time.

        Parameters
        ----------
        n_ivf_probe : int
            Inverted lists that a query token reads; recall and time rise with it.
        n_full_scores : int
            Documents that stay after a first scoring by centroids.  After a second a quarter of them are
            decompressed: no more can be found.
        candidates : int
            Rank so many of the best again by exact Chamfer, whose scores are then returned: this reads
            the stored token vectors, which PLAID itself does without.  0 for PLAID as it is.
        """
        return self.asked(
            queries,
            k,
            self._index,
            candidates,
            top_k=max(k, candidates),
            n_ivf_probe=n_ivf_probe,
            n_full_scores=n_full_scores,
        )

    def reads_tokens(self, **query: Any) -> bool:
        """Return whether candidates are ranked exactly."""
        return bool(query.get("candidates", 0))

    def bytes_per_document(self) -> float:
        """Return the bytes of the index's files.

        Compressed tokens are in it: a search without `candidates` needs no token store on top.
        Not counted are the ``merged_*`` files, copies of the chunks that opening an index makes.
        """
        files = [path for path in self._index.iterdir() if not path.name.startswith("merged_")]
        return sum(path.stat().st_size for path in files) / len(self.documents)
