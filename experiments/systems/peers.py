"""Other libraries, each in its own environment and process."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from muvera import MultiVectors

from ..peers.environments import PEERS, Worker, save_texts
from .base import Answers, Material, Ranked, System, timed_search


class WorkerSystem(System):
    """A library, by its name in PEERS, in its own environment and process.

    It builds and searches an index there.
    """

    own_process: ClassVar[bool] = True
    library: ClassVar[str]
    index_name: ClassVar[str] = "index"
    _worker: Worker | None = None

    #: Settings of the library's build.
    settings: ClassVar[dict[str, Any]] = {}

    def prepare(self, material: Material) -> None:
        """Start the library's process and import the library.

        Its environment is created if it is missing.
        """
        self._worker = Worker(PEERS[self.library], material.folder, material.cache)
        self._worker.time("load")

    def build(self, material: Material) -> None:
        """Build the index in the scratch folder.

        Copying the documents to the process is not timed.
        """
        super().build(material)
        self.folder, self._index = material.folder, material.folder / self.index_name
        save_texts(self.folder, "documents", list(material.documents))
        how: dict[str, Any] = {"index": str(self._index), "seed": material.seed, "threads": material.threads}
        self.build_seconds = float(self.worker.time("build", **how, **self.settings)[0].sum())
        for name in ("documents.npy", "documents_lengths.npy"):
            (self.folder / name).unlink()

    @property
    def worker(self) -> Worker:
        """The library's process, after :meth:`prepare`."""
        assert self._worker is not None
        return self._worker

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.close()

    def answers(self, queries: MultiVectors, k: int, candidates: int = 0, **options: Any) -> Answers:
        """Return the answers of the process's "search".

        The first `candidates`, if any, are ranked by exact Chamfer.

        "search" returns pairs of positions and scores of documents, best first.
        """
        save_texts(self.folder, "queries", [tokens.astype(np.float32) for tokens in queries])
        how = {"index": str(self._index), "top_k": max(k, candidates), **options}
        found, times = self.worker.each("search", "queries", self.folder, **how)
        ids, scores = found[:, :, 0].astype(np.int64), found[:, :, 1].astype(np.float32)
        if not candidates:
            return Answers(ids, scores, times[0])

        def answer(place: int, query: MultiVectors) -> Ranked:
            best = ids[place, :candidates]
            return self.ranked_exactly(query, best[best >= 0], k)

        ranked = timed_search(queries, k, answer)
        return Answers(ranked.ids, ranked.scores, ranked.seconds + times[0])

    def reads_tokens(self, **query: Any) -> bool:
        """Return True if candidates are ranked exactly."""
        return bool(query.get("candidates", 0))

    def counts(self, path: Path) -> bool:
        """Return True if searches read this file of the index."""
        return True

    def bytes_per_document(self) -> float:
        """Return the bytes of the files that a search reads.

        They contain the codes of tokens.
        """
        files = [self._index] if self._index.is_file() else self._index.rglob("*")
        sizes = [path.stat().st_size for path in files if path.is_file() and self.counts(path)]
        return sum(sizes) / len(self.documents)


class Plaid(WorkerSystem):
    """PLAID through fast-plaid, on the processor.

    It has centroids, inverted lists and compressed residuals.

    It ranks by the similarities of its decompressed tokens.  Its environment has torch
    (some gigabytes).  A search runs on one thread.  Its arithmetic is in half
    precision, which few processors support; it is made for GPUs.
    """

    name: ClassVar[str] = "plaid"
    library: ClassVar[str] = "fast-plaid"
    settings: ClassVar[dict[str, Any]] = {
        "nbits": 4, "kmeans_niters": 4, "max_points_per_centroid": 256, "n_samples_kmeans": None,
    }  # fmt: skip

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        n_ivf_probe: int = 8,
        n_full_scores: int = 4096,
        candidates: int = 0,
    ) -> Answers:
        """Answer queries; rank the best `candidates` by exact Chamfer.

        0 means plain PLAID.

        A quarter of the `n_full_scores` best documents by centroids is decompressed.
        `n_full_scores` determines most of a query's time: sweep it from a few times k
        upwards.
        """
        return self.answers(queries, k, candidates, n_ivf_probe=n_ivf_probe, n_full_scores=n_full_scores)

    def counts(self, path: Path) -> bool:
        """Return False for ``merged_*``.

        Opening an index makes these copies of the chunks.
        """
        return not path.name.startswith("merged_")


class Warp(WorkerSystem):
    """WARP through xtr-warp-rs.

    It scores the coded residuals of retrieved tokens and imputes missing ones.

    Its environment has torch (some gigabytes).  A search runs on one thread.
    """

    name: ClassVar[str] = "warp"
    library: ClassVar[str] = "xtr-warp"
    settings: ClassVar[dict[str, Any]] = {"nbits": 4, "kmeans_niters": 4}

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        nprobe: int | None = None,
        candidates: int = 0,
    ) -> Answers:
        """Answer queries; rank the best `candidates` by exact Chamfer."""
        return self.answers(queries, k, candidates, nprobe=nprobe)

    def counts(self, path: Path) -> bool:
        """Return False for the chunks of the build.

        These numbered files are copied into the compacted ones.
        """
        return not path.name[0].isdigit()


class Tachiom(WorkerSystem):
    """TACHIOM through tachiom.

    It has centroids by token ids, a graph of them, and product codes of 32 bytes a
    token.

    It builds and searches on one thread.
    """

    name: ClassVar[str] = "tachiom"
    library: ClassVar[str] = "tachiom"
    index_name: ClassVar[str] = "index.bin"

    def build(self, material: Material) -> None:
        """Build the index of tokens and their vocabulary ids."""
        reason = "The collection has no token ids, by which tachiom groups tokens."
        material.needs("document_token_ids", reason=reason)
        kinds = material.folder / "token_ids.npy"
        np.save(kinds, np.concatenate(material.collection.document_token_ids or []).astype(np.uint32))
        super().build(material)
        kinds.unlink()

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        k_centroids: int = 20,
        k_docs_to_score: int = 500,
        alpha: float | None = 0.45,
        candidates: int = 0,
    ) -> Answers:
        """Answer queries; rank the best `candidates` by exact Chamfer.

        Documents whose score by centroids is below `alpha` times the best are skipped.
        """
        scored = max(k, candidates, k_docs_to_score)
        options: dict[str, Any] = {"k_centroids": k_centroids, "ef_search": max(30, k_centroids)}
        return self.answers(queries, k, candidates, k_docs_to_score=scored, alpha=alpha, **options)


class Lemur(WorkerSystem):
    """LEMUR by its authors.

    Trained features of query tokens, exact search, and our exact Chamfer.

    Its environment has torch (some gigabytes).
    """

    name: ClassVar[str] = "lemur"
    library: ClassVar[str] = "lemur"
    settings: ClassVar[dict[str, Any]] = {"epochs": 10, "final_hidden_dim": 2048}

    def search(self, queries: MultiVectors, k: int, *, candidates: int = 100) -> Answers:
        """Answer queries: rank `candidates` of its vectors by exact Chamfer."""
        return self.answers(queries, k, candidates)


class Qdrant(WorkerSystem):
    """Qdrant's native multivectors through qdrant-edge.

    It computes MaxSim over tokens in half precision.

    Its scores are Chamfer up to rounding, so nothing ranks them again.  A graph of mean
    token vectors finds candidates, as its documentation advises.
    """

    name: ClassVar[str] = "qdrant"
    library: ClassVar[str] = "qdrant-edge"
    index_name: ClassVar[str] = "shard"
    settings: ClassVar[dict[str, Any]] = {"m": 16, "ef_construct": 100}

    def search(self, queries: MultiVectors, k: int, *, candidates: int = 100) -> Answers:
        """Answer queries by MaxSim of `candidates`."""
        return self.answers(queries, k, search_width=max(k, candidates))

    def reads_tokens(self, **_: Any) -> bool:
        """Return False: the shard contains the tokens."""
        return False

    def bytes_per_document(self) -> float:
        """Return the bytes of the shard's files.

        The files are sparse; allocated blocks count.
        """
        files = (path for path in self._index.rglob("*") if path.is_file())
        return sum(512 * path.stat().st_blocks for path in files) / len(self.documents)
