"""FDEs of other libraries under the same search and the same exact rerank as ours."""

from __future__ import annotations

import time
from abc import ABC
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors, rerank
from muvera.mips import ExactSearch, HNSWSearch

from ..peers.environments import PEERS, Worker, save_texts
from .base import Answers, Family, Material
from .timed_search import Best, timed_search

__all__ = ["Fastembed", "MuveraPython", "Muvfde", "PeerFDE"]

# Documents passed to the worker at a time: their FDEs come back as one array.
_BLOCK = 500


class PeerFDE(ABC):
    """A library that encodes; searching and reranking are ours, so that only the FDEs differ.

    The library runs in an environment and a process of its own and encodes text by text, which is all that
    most of them offer.  A query's time is that of its encoding there, of the search and of the rerank.
    All three build the paper's FDEs with filled cells; the size is what there is to tune.

    Parameters
    ----------
    repetitions, bits, width : int
        R, k and p of the paper: R * 2^k * p floats.  More of each raise recall, memory and time.
    backend : {"exact", "hnsw"}
        Read all FDEs, or walk a graph of them.
    hnsw : dict, optional
        Settings of :class:`muvera.mips.HNSWSearch` but for the seed.
    """

    name: ClassVar[str]
    family: ClassVar[Family] = "peer"
    chamfer: ClassVar[bool] = True
    library: ClassVar[str]

    def __init__(
        self,
        *,
        repetitions: int = 20,
        bits: int = 5,
        width: int = 16,
        backend: Literal["exact", "hnsw"] = "exact",
        hnsw: dict[str, Any] | None = None,
    ) -> None:
        if backend not in ("exact", "hnsw"):
            raise ValueError(f"backend must be 'exact' or 'hnsw', got {backend!r}.")
        self._settings = {"repetitions": repetitions, "bits": bits, "width": width}
        self._backend, self._hnsw = backend, dict(hnsw or {})
        self._worker: Worker | None = None

    def prepare(self, material: Material) -> None:
        """Make the library's environment where it is missing and start its process with it."""
        self._worker = Worker(PEERS[self.library], material.folder, material.cache)
        self._worker.time("load")

    def build(self, material: Material) -> None:
        """Encode all documents and index the FDEs."""
        if self._worker is None:
            self.prepare(material)
        self._documents, self._threads = material.documents, material.threads
        self._folder = material.folder
        self._settings |= {"dimension": material.documents.dimension, "seed": material.seed}
        size = self._settings["repetitions"] * 2 ** self._settings["bits"] * self._settings["width"]
        self._search: ExactSearch | HNSWSearch = (
            HNSWSearch(size, seed=material.seed, **self._hnsw)
            if self._backend == "hnsw"
            else ExactSearch(size)
        )
        #: Of encoding in the worker and of adding here: handing over is not the library's.
        self.build_seconds = 0.0
        for start in range(0, len(material.documents), _BLOCK):
            fdes, seconds = self._encode("encode_document", material.documents[start : start + _BLOCK])
            begun = time.perf_counter()
            self._search.add(np.arange(start, start + len(fdes)), fdes, material.threads)
            self.build_seconds += float(seconds.sum()) + time.perf_counter() - begun

    def search(
        self,
        queries: MultiVectors,
        positions: NDArray[np.int64],
        k: int,
        *,
        candidates: int = 100,
        ef: int | None = None,
    ) -> Answers:
        """Answer queries one at a time.

        Parameters
        ----------
        queries, positions, k
            As :class:`experiments.systems.base.System` says.
        candidates : int
            Documents that are ranked exactly; recall and time rise with it.
        ef : int, optional
            Candidates of the walk through the graph; default: what it was built with.
        """
        if ef is not None and isinstance(self._search, HNSWSearch):
            self._search.set_ef(ef)
        count = min(max(k, candidates), len(self._documents))
        fdes, seconds = self._encode("encode_query", queries)

        def answer(place: int, query: MultiVectors) -> Best:
            found, _ = self._search.search(fdes[place : place + 1], count, threads=self._threads)
            ranking = rerank(query, self._documents, [found[0]], k, threads=self._threads)[0]
            return np.asarray(ranking.ids, np.int64), ranking.scores

        answers = timed_search(queries, k, answer)
        return Answers(answers.ids, answers.scores, answers.seconds + seconds)

    def _encode(self, operation: str, texts: MultiVectors) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return FDEs and the seconds that each took."""
        assert self._worker is not None  # for the type checker: it is built first
        save_texts(self._folder, "texts", [tokens.astype(np.float32) for tokens in texts])
        fdes, times = self._worker.each(operation, "texts", self._folder, **self._settings)
        return fdes.reshape(len(texts), -1).astype(np.float32), times[0]

    def bytes_per_document(self) -> float:
        """Return the bytes of an FDE as it is kept and, with a graph, of its links."""
        return float(self._search.info()["bytes_per_vector"])

    def close(self) -> None:
        """End the worker and let go of the FDEs."""
        if self._worker is not None:
            self._worker.close()
        self.__dict__.pop("_search", None)


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
