"""FDEs of other libraries under the same search and the same exact rerank as muvera's."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors

from ..peers.environments import save_texts
from .base import Answers, Material, Ranked
from .timed_search import timed_search
from .vector_search import VectorBackend, VectorSearchSettings
from .worker_system import WorkerSystem

__all__ = ["Fastembed", "MuveraPython", "Muvfde", "PeerFDE"]

# Documents passed to the worker at a time: their FDEs come back as one array.
_BLOCK = 500


class PeerFDE(WorkerSystem):
    """A library that encodes; search and rerank are muvera's, so that only the FDEs differ.

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
        Settings of :class:`muvera.mips.HNSWSettings` but for the seed.
    """

    chamfer: bool = True

    def __init__(
        self,
        *,
        repetitions: int = 20,
        bits: int = 5,
        width: int = 16,
        backend: VectorBackend = "exact",
        hnsw: dict[str, Any] | None = None,
    ) -> None:
        self._sizes = {"repetitions": repetitions, "bits": bits, "width": width}
        self._settings = VectorSearchSettings(backend, hnsw)

    def build(self, material: Material) -> None:
        """Encode all documents and index the FDEs."""
        super().build(material)
        self._sizes |= {"dimension": material.documents.dimension, "seed": material.seed}
        size = self._sizes["repetitions"] * 2 ** self._sizes["bits"] * self._sizes["width"]
        self._search = self._settings.make(size, material.seed)
        # Of encoding in the worker and of adding here: handing over is not the library's.
        self.build_seconds = 0.0
        for start in range(0, len(material.documents), _BLOCK):
            fdes, seconds = self._encode("encode_document", material.documents[start : start + _BLOCK])
            begun = time.perf_counter()
            self._search.add(np.arange(start, start + len(fdes)), fdes, material.threads)
            self.build_seconds += float(seconds.sum()) + time.perf_counter() - begun

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        candidates: int = 100,
        ef: int | None = None,
    ) -> Answers:
        """Answer queries one at a time.

        Parameters
        ----------
        candidates : int
            Documents that are ranked exactly; recall and time rise with it.
        ef : int, optional
            Candidates of the walk through the graph; default: what it was built with.
        """
        count = min(max(k, candidates), len(self.documents))
        fdes, seconds = self._encode("encode_query", queries)

        def answer(place: int, query: MultiVectors) -> Ranked:
            found, _ = self._search.search(fdes[place : place + 1], count, threads=self.threads, ef=ef)
            return self.ranked_exactly(query, found[0], k)

        answers = timed_search(queries, k, answer)
        return Answers(answers.ids, answers.scores, answers.seconds + seconds)

    def _encode(self, operation: str, texts: MultiVectors) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return FDEs and the seconds that each took."""
        save_texts(self.folder, "texts", [tokens.astype(np.float32) for tokens in texts])
        fdes, times = self.worker.each(operation, "texts", self.folder, **self._sizes)
        return fdes.reshape(len(texts), -1).astype(np.float32), times[0]

    def bytes_per_document(self) -> float:
        """Return the bytes of an FDE as it is kept and, with a graph, of its links."""
        return float(self._search.info()["bytes_per_vector"])

    def close(self) -> None:
        """End the worker and let go of the FDEs."""
        super().close()
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
