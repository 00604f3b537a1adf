"""The first stage alone: documents in the order of their FDEs, without exact ranking."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors
from muvera.encoders.registry import make_encoder
from muvera.index.candidates import CandidateSearch
from muvera.mips import HNSWSearch, PQSearch

from .base import Answers, Family, Material
from .encoder_settings import ENCODER_ARGUMENTS, encoder_config
from .insertion_order import Order, insertion_order, intrinsic_dimension
from .timed_search import Best, timed_search

__all__ = ["Candidates"]


class Candidates:
    """What FDEs find before anything is ranked exactly; its scores are inner products of FDEs.

    Parameters
    ----------
    preset : str
        Of :data:`muvera.encoders.registry.PRESETS`: "default", "paper", "learned", ...
    backend : str
        Of :class:`muvera.index.candidates.CandidateSearch`; "exact" shows FDEs without the error of a graph.
    hnsw : dict, optional
        Settings of the graph.
    pq : dict, optional
        Settings of product codes.
    order : str
        In which order the FDEs are added, see :func:`experiments.systems.insertion_order.insertion_order`.
    **changes
        Parameters of :class:`muvera.FDEConfig` or, with ``encoder: learned``, of
        :class:`muvera.LearnedConfig`, but for dimension and seed.
    """

    name: ClassVar[str] = "fde"
    family: ClassVar[Family] = "ours"

    def __init__(
        self,
        *,
        preset: str = "default",
        backend: Any = "exact",
        hnsw: dict[str, Any] | None = None,
        pq: dict[str, Any] | None = None,
        order: Order = "given",
        **changes: Any,
    ) -> None:
        encoder_config(preset, 128, 0, changes)  # refuse wrong names and values before anything is built
        CandidateSearch.check_settings(backend, hnsw, pq)
        self._preset, self._changes = preset, changes
        self._backend, self._hnsw, self._pq, self._order = backend, hnsw, pq, order

    @staticmethod
    def open_arguments() -> Iterable[str]:
        """Name the parameters of encoders."""
        return ENCODER_ARGUMENTS

    def build(self, material: Material) -> None:
        """Encode all documents and add their FDEs to the search."""
        documents, threads = material.documents, material.threads
        config = encoder_config(self._preset, documents.dimension, material.seed, self._changes)
        encoder = make_encoder(config)
        if encoder.needs_fit:
            encoder.fit(documents, threads=threads)
        self._contents = CandidateSearch(encoder, self._backend, self._hnsw, self._pq)
        self._threads, self._intrinsic = threads, np.empty(0)
        rows = np.arange(len(documents))
        if self._order == "given":
            self._contents.add(rows, documents, threads)
            if isinstance(self._contents.search, PQSearch):
                self._contents.search.learn(threads)
            return
        fdes = encoder.encode_documents(documents, threads=threads)
        self._intrinsic = intrinsic_dimension(fdes)
        rows = insertion_order(self._order, fdes, self._intrinsic, material.seed)
        for start in range(0, len(rows), 1024):
            part = rows[start : start + 1024]
            self._contents.search.add(part, fdes[part], threads)

    def search(
        self,
        queries: MultiVectors,
        positions: NDArray[np.int64],
        k: int,
        *,
        ef: int | None = None,
        one_by_one_timed: bool = False,
    ) -> Answers:
        """Return the documents with the largest inner products.

        Parameters
        ----------
        queries, positions, k
            As :class:`experiments.systems.base.System` says.
        ef : int, optional
            Candidates of the walk through the graph; default: what it was built with.
        one_by_one_timed : bool
            Without it all queries are answered at once, and times are NaN: not measured.
        """
        search = self._contents.search
        if isinstance(search, HNSWSearch):
            built = int((self._hnsw or {}).get("ef", HNSWSearch(1).ef))
            search.set_ef(built if ef is None else ef)

        def answer(_: int, query: MultiVectors) -> Best:
            fde = self._contents.encoder.encode_queries(query, threads=self._threads)
            ids, scores = search.search(fde, k, threads=self._threads)
            return ids[0][ids[0] >= 0], scores[0][ids[0] >= 0]

        if one_by_one_timed:
            return timed_search(queries, k, answer)
        fdes = self._contents.encoder.encode_queries(queries, threads=self._threads)
        ids, scores = search.search(fdes, k, threads=self._threads)
        return Answers(ids, scores, np.full(len(queries), np.nan))

    def facts(self) -> dict[str, float]:
        """Return the FDE's size and, where the order needed it, the mean intrinsic dimension."""
        found = {"vector_dimension": float(self._contents.encoder.config.vector_dimension)}
        if len(self._intrinsic):
            found["intrinsic_dimension"] = float(self._intrinsic.mean())
        return found

    @staticmethod
    def reads_tokens(**_: Any) -> bool:
        """Return False: nothing is ranked exactly."""
        return False

    def bytes_per_document(self) -> float:
        """Return the bytes of an FDE as it is kept and, with a graph, of its links."""
        return float(self._contents.search.info()["bytes_per_vector"])

    def close(self) -> None:
        """Let go of the FDEs."""
        del self._contents
