"""Other libraries, each in its own environment and process."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors
from muvera.encoders.registry import make_encoder

from ..known_names import require_known
from ..peers.environments import PEERS, Worker, save_texts
from .base import Answers, Family, Material, Ranked, System, timed_search
from .baselines import vector_search
from .library import encoder_config

__all__ = [
    "Fastembed",
    "Lemur",
    "MuveraPython",
    "Muvfde",
    "Plaid",
    "ProductCodes",
    "Qdrant",
    "Tachiom",
    "Warp",
]

# Documents per call of an encoding library, which returns their vectors as one array.
_BLOCK = 500


class WorkerSystem(System):
    """A library, by its name in PEERS, that runs in its own environment and process."""

    family: ClassVar[Family] = "peer"
    own_process: ClassVar[bool] = True
    library: ClassVar[str]
    _worker: Worker | None = None

    #: Names and default values of the build arguments.
    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, **settings: Any) -> None:
        for name in settings:
            require_known(name, self.defaults, f"build argument of {self.name}")
        self._settings = {**self.defaults, **settings}

    @classmethod
    def open_arguments(cls) -> Iterable[str]:
        """Return the names of the build arguments."""
        return cls.defaults

    def prepare(self, material: Material) -> None:
        """Create the library's environment if it is missing, start its process and import the library."""
        self._worker = Worker(PEERS[self.library], material.folder, material.cache)
        self._worker.time("load")

    def build(self, material: Material) -> None:
        """Start the process if it is not running."""
        super().build(material)
        self.folder = material.folder
        if self._worker is None:
            self.prepare(material)

    @property
    def worker(self) -> Worker:
        """The library's process, after :meth:`prepare` or :meth:`build`."""
        assert self._worker is not None
        return self._worker

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.close()


class IndexingPeer(WorkerSystem):
    """A library that builds an index of all documents and searches it."""

    index_name: ClassVar[str] = "index"

    def build(self, material: Material) -> None:
        """Build the index in the scratch folder; copying the documents to the process is not timed."""
        super().build(material)
        self._index = material.folder / self.index_name
        self._build(material, list(material.documents))

    def _build(self, material: Material, documents: list[NDArray[Any]]) -> None:
        save_texts(material.folder, "documents", documents)
        how: dict[str, Any] = {"index": str(self._index), "seed": material.seed, "threads": material.threads}
        self.build_seconds = float(self.worker.time("build", **how, **self._settings)[0].sum())
        for name in ("documents.npy", "documents_lengths.npy"):
            (material.folder / name).unlink()

    def answers(self, queries: MultiVectors, k: int, candidates: int = 0, **options: Any) -> Answers:
        """Return the answers of the process's "search"; rank the first `candidates`, if any, by exact Chamfer.

        "search" returns pairs of positions and scores of documents, best first.
        """
        self._pass_queries(queries)
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

    def _pass_queries(self, queries: MultiVectors) -> None:
        save_texts(self.folder, "queries", [tokens.astype(np.float32) for tokens in queries])

    def reads_tokens(self, **query: Any) -> bool:
        """Return True if candidates are ranked exactly."""
        return bool(query.get("candidates", 0))

    def counts(self, path: Path) -> bool:
        """Return True if searches read this file of the index."""
        return True

    def bytes_per_document(self) -> float:
        """Return the bytes of the files that a search reads, which contain the codes of tokens."""
        files = [self._index] if self._index.is_file() else self._index.rglob("*")
        sizes = [path.stat().st_size for path in files if path.is_file() and self.counts(path)]
        return sum(sizes) / len(self.documents)


class Plaid(IndexingPeer):
    """PLAID through fast-plaid: centroids, inverted lists and compressed residuals, on the processor.

    It ranks by the similarities of its decompressed tokens.  Its environment has torch (some gigabytes).  A search
    runs on one thread.  Its arithmetic is in half precision, which few processors support; it is made for GPUs.
    """

    name: ClassVar[str] = "plaid"
    library: ClassVar[str] = "fast-plaid"
    defaults: ClassVar[dict[str, Any]] = {
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
        """Answer queries; rank the best `candidates` by exact Chamfer, 0 for plain PLAID.

        Of `n_full_scores` documents after the first scoring by centroids a quarter is decompressed.  It
        determines most of a query's time: sweep it from a few times k upwards.
        """
        return self.answers(queries, k, candidates, n_ivf_probe=n_ivf_probe, n_full_scores=n_full_scores)

    def counts(self, path: Path) -> bool:
        """Return False for ``merged_*``, copies of the chunks that opening an index makes."""
        return not path.name.startswith("merged_")


class Warp(IndexingPeer):
    """WARP through xtr-warp-rs: scores of retrieved tokens' coded residuals, missing ones imputed.

    Its environment has torch (some gigabytes).  A search runs on one thread.
    """

    name: ClassVar[str] = "warp"
    library: ClassVar[str] = "xtr-warp"
    defaults: ClassVar[dict[str, Any]] = {"nbits": 4, "kmeans_niters": 4}

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        nprobe: int | None = None,
        t_prime: int | None = None,
        candidates: int = 0,
    ) -> Answers:
        """Answer queries; rank the best `candidates` by exact Chamfer.

        Missing similarities are estimated after `t_prime` tokens.  None: its own choice.
        """
        return self.answers(queries, k, candidates, nprobe=nprobe, t_prime=t_prime)

    def counts(self, path: Path) -> bool:
        """Return False for the chunks of the build, numbered files that are copied into the compacted ones."""
        return not path.name[0].isdigit()


class Tachiom(IndexingPeer):
    """TACHIOM through tachiom: centroids by token ids, a graph of them, and product codes of 32 bytes a token.

    It builds and searches on one thread.
    """

    name: ClassVar[str] = "tachiom"
    library: ClassVar[str] = "tachiom"
    index_name: ClassVar[str] = "index.bin"
    defaults: ClassVar[dict[str, Any]] = {"total_centroids": None, "ef_construction": None}

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


class Lemur(IndexingPeer):
    """LEMUR by its authors: trained features of query tokens, exact search, and our exact Chamfer.

    Its environment has torch (some gigabytes).  More `epochs` improve the vectors and take longer to train.
    """

    name: ClassVar[str] = "lemur"
    library: ClassVar[str] = "lemur"
    defaults: ClassVar[dict[str, Any]] = {"epochs": 10, "final_hidden_dim": 2048}

    def search(self, queries: MultiVectors, k: int, *, candidates: int = 100) -> Answers:
        """Answer queries: rank `candidates` of its vectors by exact Chamfer."""
        return self.answers(queries, k, candidates)


class Qdrant(IndexingPeer):
    """Qdrant's native multivectors through qdrant-edge: its MaxSim over tokens in half precision.

    Its scores are Chamfer up to rounding, so nothing ranks them again.  A graph of mean token vectors finds
    candidates, as its documentation advises.  With `graph_of_tokens` it is a graph of token sets, whose build
    takes very long because each step compares all tokens of two documents.
    """

    name: ClassVar[str] = "qdrant"
    library: ClassVar[str] = "qdrant-edge"
    index_name: ClassVar[str] = "shard"
    defaults: ClassVar[dict[str, Any]] = {"graph_of_tokens": False, "m": 16, "ef_construct": 100}

    def search(self, queries: MultiVectors, k: int, *, candidates: int = 100) -> Answers:
        """Answer queries by MaxSim of `candidates`, or in the graph of tokens with as many kept."""
        graph_of_tokens = self._settings["graph_of_tokens"]
        options = {"search_width": max(k, candidates), "graph_of_tokens": graph_of_tokens}
        return self.answers(queries, k, **options)

    def reads_tokens(self, **_: Any) -> bool:
        """Return False: the shard contains the tokens."""
        return False

    def bytes_per_document(self) -> float:
        """Return the bytes of the shard's files, in allocated blocks since they are sparse."""
        files = (path for path in self._index.rglob("*") if path.is_file())
        return sum(512 * path.stat().st_blocks for path in files) / len(self.documents)


class ProductCodes(IndexingPeer):
    """The paper's compression: a preset's document vectors as product codes (PQ-256-G) of faiss.

    One byte, the number of one of 256 centroids, replaces `subvector_size` floats (G).
    """

    name: ClassVar[str] = "pq"
    library: ClassVar[str] = "faiss"
    defaults: ClassVar[dict[str, Any]] = {"preset": "fde", "subvector_size": 8}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._preset = self._settings.pop("preset")
        encoder_config(self._preset, 128, 0, {})

    def _build(self, material: Material, documents: list[NDArray[Any]]) -> None:
        """Encode here, and train and fill the codes in the process; both are timed."""
        start = time.perf_counter()
        config = encoder_config(self._preset, material.documents.dimension, material.seed, {})
        self._encoder = make_encoder(config)
        if self._encoder.needs_fit:
            self._encoder.fit(material.documents, threads=self.threads)
        vectors = self._encoder.encode_documents(material.documents, threads=self.threads)
        seconds = time.perf_counter() - start
        super()._build(material, list(vectors[:, np.newaxis]))
        self.build_seconds = seconds + (self.build_seconds or 0.0)

    def search(self, queries: MultiVectors, k: int, *, candidates: int = 0) -> Answers:
        """Rank documents by their codes; with `candidates`, order these by exact Chamfer."""
        answers = self.answers(queries, k, candidates)
        return Answers(answers.ids, answers.scores, answers.seconds + self._encode_seconds)

    def _pass_queries(self, queries: MultiVectors) -> None:
        vectors, self._encode_seconds = [], np.empty(len(queries))
        for i in range(len(queries)):
            start = time.perf_counter()
            vectors.append(self._encoder.encode_queries(queries[i : i + 1], threads=self.threads))
            self._encode_seconds[i] = time.perf_counter() - start
        save_texts(self.folder, "queries", vectors)

    def bytes_per_document(self) -> float:
        """Return the bytes of a document's codes."""
        return -(-self._encoder.config.vector_dimension // int(self._settings["subvector_size"]))


class PeerFDE(WorkerSystem):
    """A library that encodes; this library searches and ranks, so that only the FDEs differ.

    A query's time is that of its encoding in the process, of the search and of the ranking.  All libraries build the
    paper's FDEs with filled cells: R * 2^k * p floats, with R = `repetitions`, k = `bits` and p = `width`.
    """

    chamfer: bool = True
    defaults: ClassVar[dict[str, Any]] = {
        "repetitions": 20, "bits": 5, "width": 16, "backend": "exact", "hnsw": None,
    }  # fmt: skip

    def build(self, material: Material) -> None:
        """Encode all documents and index the FDEs; copying between the processes is not timed."""
        super().build(material)
        self._sizes = {name: self._settings[name] for name in ("repetitions", "bits", "width")}
        size = self._sizes["repetitions"] * 2 ** self._sizes["bits"] * self._sizes["width"]
        self._sizes |= {"dimension": material.documents.dimension, "seed": material.seed}
        self._search = vector_search(self._settings["backend"], size, material.seed, self._settings["hnsw"])
        self.build_seconds = 0.0
        for start in range(0, len(material.documents), _BLOCK):
            fdes, seconds = self._encode("encode_document", material.documents[start : start + _BLOCK])
            began = time.perf_counter()
            self._search.add(np.arange(start, start + len(fdes)), fdes, material.threads)
            self.build_seconds += float(seconds.sum()) + time.perf_counter() - began

    def search(
        self, queries: MultiVectors, k: int, *, candidates: int = 100, ef: int | None = None
    ) -> Answers:
        """Answer queries: rank `candidates` of the search exactly."""
        count = min(max(k, candidates), len(self.documents))
        fdes, seconds = self._encode("encode_query", queries)

        def answer(place: int, query: MultiVectors) -> Ranked:
            ids, _ = self._search.search(fdes[place : place + 1], count, threads=self.threads, ef=ef)
            return self.ranked_exactly(query, ids[0], k)

        answers = timed_search(queries, k, answer)
        return Answers(answers.ids, answers.scores, answers.seconds + seconds)

    def _encode(self, operation: str, texts: MultiVectors) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return FDEs and the seconds of each."""
        save_texts(self.folder, "texts", [tokens.astype(np.float32) for tokens in texts])
        fdes, times = self.worker.each(operation, "texts", self.folder, **self._sizes)
        return fdes.reshape(len(texts), -1).astype(np.float32), times[0]

    def bytes_per_document(self) -> float:
        """Return the bytes of a stored FDE and, with a graph, of its links."""
        return float(self._search.info()["bytes_per_vector"])


class Fastembed(PeerFDE):
    """fastembed's Muvera: NumPy, dense +-1 projections."""

    name: ClassVar[str] = "fastembed"
    library: ClassVar[str] = "fastembed"


class Muvfde(PeerFDE):
    """The C++ reference through muvfde: count sketches as projections."""

    name: ClassVar[str] = "muvfde"
    library: ClassVar[str] = "muvfde"


class MuveraPython(PeerFDE):
    """muvera-python: Rust, the reference's scheme with NumPy's random numbers."""

    name: ClassVar[str] = "muvera_python"
    library: ClassVar[str] = "muvera-python"
