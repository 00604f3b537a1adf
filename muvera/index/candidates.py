"""CandidateSearch: FDEs in a single-vector index, the first stage of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.sampling import MAX_FIT_DOCUMENTS
from ..encoders.base import Encoder
from ..mips import ExactSearch, HNSWSearch, Int8Search, PQSearch, VectorSearch

__all__ = ["Backend", "CandidateSearch"]

Backend = Literal["auto", "exact", "hnsw", "int8", "pq"]

#: With backend "auto", a graph is built from this many FDEs on: below, reading all is faster
#: (`python -m experiments run crossover` measures where).
GRAPH_FROM = 3000

#: FDEs encoded at a time while adding.
_BLOCK_BYTES = 128 << 20

#: A graph that finds less than this share of the exact best is worth a warning.
LOW_RECALL = 0.95

#: Recall of the graph is measured with this many pseudo-queries.
PROBES = 64

# Their tokens, and the depth at which recall is measured.
_PROBE_TOKENS, _PROBE_K = 32, 100


class CandidateSearch:
    """Encode documents, keep their FDEs by row number, find rows for queries.

    Parameters
    ----------
    encoder : FDEEncoder or LearnedEncoder
        Fitted.
    backend : {"auto", "exact", "hnsw", "int8", "pq"}
        "exact" reads every FDE; "hnsw" walks a graph; "auto" changes from the first to the
        second when the collection has grown.  "int8" reads every FDE in a quarter of the memory,
        "pq" in a 32nd of it, and finds somewhat less.
    hnsw : dict
        Settings of :class:`muvera.mips.HNSWSearch`.
    pq : dict
        Settings of :class:`muvera.mips.PQSearch`.
    fitted_on : int
        How many of the documents here the encoder was fitted on; 0: it came fitted.
    """

    def __init__(
        self,
        encoder: Encoder,
        backend: Backend = "auto",
        hnsw: dict[str, Any] | None = None,
        pq: dict[str, Any] | None = None,
        fitted_on: int = 0,
    ) -> None:
        self.check_settings(backend, hnsw, pq)
        self.encoder, self.fitted_on = encoder, fitted_on
        self.backend: Backend = backend
        self.hnsw, self.pq = dict(hnsw or {}), dict(pq or {})
        self.recall: float | None = None
        self.recall_size = 0
        dimension = encoder.config.vector_dimension
        self.search: VectorSearch
        if backend == "hnsw":
            self.search = HNSWSearch(dimension, **self.hnsw)
        elif backend == "pq":
            self.search = PQSearch(dimension, **self.pq)
        else:
            self.search = Int8Search(dimension) if backend == "int8" else ExactSearch(dimension)

    @staticmethod
    def check_settings(backend: str, hnsw: dict[str, Any] | None, pq: dict[str, Any] | None = None) -> None:
        """Raise for a wrong setting now, not when the collection has grown enough to use it."""
        if backend not in get_args(Backend):
            raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}.")
        HNSWSearch(1, **(hnsw or {}))
        PQSearch(1, **(pq or {}))

    def add(self, rows: NDArray[np.int64], documents: MultiVectors, threads: int | None = None) -> None:
        """Encode `documents` and keep them under `rows`; those without tokens are left out.

        Where it fails, none is kept; but a graph may not accept the same rows again.
        """
        filled = documents.lengths > 0
        if not filled.all():
            rows, documents = rows[filled], documents[filled]
        step = max(1, _BLOCK_BYTES // (4 * self.encoder.config.vector_dimension))
        try:
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                # A graph is not left again.
                if self.backend == "auto" and isinstance(self.search, ExactSearch):
                    self._outgrow(len(self.search) + len(part), threads)
                fdes = self.encoder.encode_documents(documents[start : start + step], threads=threads)
                self.search.add(part, fdes, threads)
        except BaseException:
            self.remove(rows)
            raise

    def _outgrow(self, size: int, threads: int | None) -> None:
        """Replace reading all by a graph once there are many."""
        if size < GRAPH_FROM:
            return
        graph = HNSWSearch(self.encoder.config.vector_dimension, **self.hnsw)
        rows = self.search.labels()
        step = max(1, _BLOCK_BYTES // (4 * self.search.dimension))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            graph.add(part, self.search.vectors(part), threads)
        self.search = graph
        self.recall = None

    def can_add(self, rows: NDArray[np.int64]) -> bool:
        """Whether :meth:`add` would take all of these rows."""
        return self.search.can_add(rows)

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Forget rows; those that are not here, as those without tokens, are ignored."""
        self.search.remove(self.search.existing(rows))

    def find(
        self,
        queries: MultiVectors,
        count: int,
        allowed: NDArray[np.int64] | None = None,
        threads: int | None = None,
    ) -> list[NDArray[np.int64]]:
        """Return up to `count` candidate rows a query, best FDE first."""
        fdes = self.encoder.encode_queries(queries, threads=threads)
        found, _ = self.search.search(fdes, min(count, len(self.search)), allowed, threads)
        return [row[row >= 0] for row in found]

    def measure(self, documents: MultiVectors, threads: int | None = None) -> float | None:
        """Measure and keep which share of the exact best FDEs the search finds.

        Pseudo-queries are windows of `documents`' tokens, for real queries are not known here.
        Quantized FDEs have nothing exact to be compared with: their recall stays None, and what
        codes are to be learned is learned now.
        """
        if isinstance(self.search, PQSearch):
            self.search.learn(threads)
        if isinstance(self.search, (Int8Search, PQSearch)):
            return None
        self.recall, self.recall_size = 1.0, len(self.search)
        if isinstance(self.search, HNSWSearch) and len(self.search) > 0:
            probes = self.encoder.encode_queries(pseudo_queries(documents), threads=threads)
            if len(probes):
                self.recall = self.search.measure_recall(probes, min(_PROBE_K, len(self.search)), threads)
        return self.recall

    @property
    def recall_is_stale(self) -> bool:
        """Whether the recall is unknown, or was measured when there were less than half as many.

        Of quantized FDEs: whether codes are still to be learned.
        """
        if isinstance(self.search, (Int8Search, PQSearch)):
            return isinstance(self.search, PQSearch) and self.search.ready_to_train
        return self.recall is None or len(self.search) > 2 * self.recall_size

    @property
    def fitted_on_too_few(self) -> bool:
        """Whether maps were learned from few documents, and from less than half of what there is."""
        learned = self.encoder.config.needs_fit_sample and self.fitted_on > 0
        return learned and self.fitted_on < min(MAX_FIT_DOCUMENTS, len(self.search) / 2)

    def info(self) -> dict[str, Any]:
        """Return the search's own facts, and the measured recall."""
        return {**self.search.info(), "recall": self.recall, "recall_measured_at": self.recall_size}

    def warnings(self) -> list[str]:
        """Return what a user should know, in sentences."""
        found = []
        if self.recall is not None and self.recall < LOW_RECALL:
            found.append(
                f"The graph finds only {self.recall:.1%} of the exact best FDEs: raise hnsw m or ef, try "
                "space 'inner_product', or use backend 'exact'."
            )
        if self.fitted_on_too_few:
            found.append(
                f"The encoder's maps were learned from only {self.fitted_on} of now {len(self.search)} "
                "documents: compact() learns them again."
            )
        if isinstance(self.search, PQSearch) and self.search.fitted_on_too_few:
            found.append(
                f"The product codes were learned from only {self.search.fitted_on} of now "
                f"{len(self.search)} documents: compact() learns them again."
            )
        return found

    # -- keeping --------------------------------------------------------------

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the vectors; return what :meth:`load` needs beside them."""
        self.search.save(folder)
        return {
            "kind": self.search.kind,
            "backend": self.backend,
            "hnsw": self.search.settings() if isinstance(self.search, HNSWSearch) else self.hnsw,
            "pq": self.search.settings() if isinstance(self.search, PQSearch) else self.pq,
            "codes_fitted_on": self.search.fitted_on if isinstance(self.search, PQSearch) else 0,
            "fitted_on": self.fitted_on,
            "recall": self.recall,
            "recall_size": self.recall_size,
        }

    @classmethod
    def load(
        cls, folder: Path, encoder: Encoder, state: dict[str, Any], removed: NDArray[np.int64]
    ) -> CandidateSearch:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        removed : int64 (n,)
            Rows that are not to be found any more, whatever the file says.
        """
        # Older folders do not have all of it.
        learned = state.get("fitted_on", 0)
        loaded = cls(encoder, state["backend"], state["hnsw"], state.get("pq"), fitted_on=learned)
        dimension = encoder.config.vector_dimension
        if state["kind"] == "hnsw":
            loaded.search = HNSWSearch.load(folder, dimension, removed, state["hnsw"])
        elif state["kind"] == "pq":
            loaded.search = PQSearch.load(folder, dimension, state["pq"], state["codes_fitted_on"])
        else:
            kind = Int8Search if state["kind"] == "int8" else ExactSearch
            loaded.search = kind.load(folder, dimension)
        loaded.recall, loaded.recall_size = state["recall"], state["recall_size"]
        return loaded


def pseudo_queries(documents: MultiVectors, seed: int = 0) -> MultiVectors:
    """Return windows of consecutive tokens of a sample of documents, as stand-ins for queries."""
    filled = np.flatnonzero(documents.lengths > 0)
    stream = np.random.default_rng(seed)
    picked = np.sort(stream.choice(filled, min(PROBES, len(filled)), replace=False))
    windows = []
    for i in picked:
        tokens = documents[int(i)]
        start = int(stream.integers(0, max(1, len(tokens) - _PROBE_TOKENS + 1)))
        windows.append(np.asarray(tokens[start : start + _PROBE_TOKENS]))
    return MultiVectors.from_arrays(windows, dimension=documents.dimension)
