"""CandidateSearch: documents' vectors in a single-vector index, the first stage of a search."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.sampling import MAX_FIT_DOCUMENTS
from ..encoders.base import Encoder
from ..mips import GRAPHS, SEARCHES, SavedState, VectorSearch, available_graph, make_search
from ..mips.base import Guard
from ..mips.exact import MAX_ROUNDED
from .quality import FirstStageRecall
from .sample_profile import DRIFTED, SampleProfile
from .settings import IndexSettings

__all__ = ["CandidateSearch", "graph_from"]

# With backend "auto", a graph is built from so many vectors of up to so many floats on: below, reading all is
# faster (`python -m experiments run crossover` measures where, on collections; `scaling` reads and walks more).
_GRAPH_FROM = ((512, 10_000), (MAX_ROUNDED, 6_000))

# The same for longer vectors.
_LONG_GRAPH_FROM = 3000

#: Vectors encoded at a time while adding.
_BLOCK_BYTES = 128 << 20

#: A graph that finds less than this share of the exact best is worth a warning.
LOW_RECALL = 0.95

# Best vectors that a graph is to find where its recall is measured.
_MEASURED_K = 100


def graph_from(dimension: int) -> int:
    """Return the number of vectors of `dimension` floats from which on "auto" builds a graph."""
    return next((count for most, count in _GRAPH_FROM if dimension <= most), _LONG_GRAPH_FROM)


class CandidateSearch:
    """Encode documents, keep their vectors by row number, find rows for queries.

    Parameters
    ----------
    encoder : Encoder
        Fitted.
    settings : IndexSettings, optional
        What kind of search keeps the vectors, and how.
    fitted_on : int
        How many of the documents here the encoder was fitted on; 0: it came fitted.
    """

    def __init__(self, encoder: Encoder, settings: IndexSettings | None = None, fitted_on: int = 0) -> None:
        self.encoder, self.fitted_on = encoder, fitted_on
        self.settings = IndexSettings() if settings is None else settings
        self.recall: float | None = None
        self.recall_size = 0
        self.first_stage: FirstStageRecall | None = None
        self.profile: SampleProfile | None = None
        backend = self.settings.backend
        self.search = self._made("exact" if backend == "auto" else backend)

    def _made(self, kind: str) -> VectorSearch:
        return make_search(kind, self.encoder.config.vector_dimension, self.settings.search_settings(kind))

    def add(
        self,
        rows: NDArray[np.int64],
        documents: MultiVectors,
        threads: int | None = None,
        guard: Guard = nullcontext,
    ) -> None:
        """Encode `documents` and keep them under `rows`; those without tokens are left out.

        Where it fails, none is kept; but a graph may not accept the same rows again.

        Parameters
        ----------
        rows : int64 (n,)
        documents : MultiVectors
        threads : int, optional
        guard : callable
            Returns what is held while nobody may search.
        """
        filled = documents.lengths > 0
        if not filled.all():
            rows, documents = rows[filled], documents[filled]
        step = max(1, _BLOCK_BYTES // (4 * self.encoder.config.vector_dimension))
        try:
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                self._change_to_graph(len(self.search) + len(part), threads)
                vectors = self.encoder.encode_documents(documents[start : start + step], threads=threads)
                self.search.add(part, vectors, threads, guard)
            if self.profile is not None:
                self.profile.count(documents)
        except BaseException:
            with guard():
                self.remove(rows)
            raise

    def _change_to_graph(self, size: int, threads: int | None) -> None:
        """Replace reading all by a graph once there are many; a graph is not left again."""
        wanted = size >= graph_from(self.search.dimension)
        if self.settings.backend != "auto" or self.search.kind in GRAPHS or not wanted:
            return
        graph, before = self._made(available_graph()), self.search
        rows = before.labels()
        step = max(1, _BLOCK_BYTES // (4 * before.dimension))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            graph.add(part, before.vectors(part), threads)
        self.search = graph
        self.recall, self.recall_size = None, 0

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
        *,
        ef: int | None = None,
        hidden: int = 0,
        below: int | None = None,
    ) -> list[NDArray[np.int64]]:
        """Return up to `count` candidate rows a query, best vector first.

        Parameters
        ----------
        queries : MultiVectors
        count : int
        allowed : int64 (n,), optional
            Rows to search among.
        threads : int, optional
        ef : int, optional
            Candidates that the walk through a graph keeps.
        hidden : int
            How many vectors of rows from `below` on may be here: documents that are being added.
        below : int, optional
            Only lower rows are returned.
        """
        vectors = self.encoder.encode_queries(queries, threads=threads)
        wanted = min(count + hidden, len(self.search))
        if wanted == 0:
            return [np.empty(0, np.int64)] * len(queries)
        found, _ = self.search.search(vectors, wanted, allowed, threads, ef=ef)
        kept = (found >= 0) & (found < (np.iinfo(np.int64).max if below is None else below))
        return [row[keep][:count] for row, keep in zip(found, kept, strict=True)]

    def measure(self, queries: MultiVectors, threads: int | None = None) -> float | None:
        """Measure the recall of the exact best vectors."""
        vectors = self.encoder.encode_queries(queries, threads=threads)
        self.recall = self.search.measure_recall(vectors, _MEASURED_K, threads)
        self.recall_size = len(self.search)
        return self.recall

    @property
    def recall_is_stale(self) -> bool:
        """Whether something is to be learned, or there are twice as many as when recall was measured."""
        doubled = self.recall_size == 0 or len(self.search) > 2 * self.recall_size
        return doubled

    @property
    def fitted_on_too_few(self) -> bool:
        """Whether maps were learned from few documents, and from less than half of what there is."""
        learned = self.encoder.config.needs_fit_sample and self.fitted_on > 0
        return learned and self.fitted_on < min(MAX_FIT_DOCUMENTS, len(self.search) / 2)

    @property
    def has_drifted(self) -> bool:
        """Whether the documents that were added are unlike those that the maps were learned from."""
        distance = None if self.profile is None else self.profile.distance
        return distance is not None and distance >= DRIFTED

    def info(self) -> dict[str, Any]:
        """Return the search's own facts, and the measured recall."""
        size = 0 if self.recall is None else self.recall_size
        return {**self.search.info(), "recall": self.recall, "recall_measured_at": size}

    def warnings(self) -> list[str]:
        """Return what a user should know, in sentences."""
        found = []
        if self.settings.backend == "auto" and self.search.kind == "usearch":
            found.append(
                "hnswlib is not installed, so that usearch builds the graph: the same recall in half the memory. "
                "pip install 'muvera-toolkit[hnswlib]', which needs a C++ compiler, brings it."
            )
        if self.recall is not None and self.recall < LOW_RECALL:
            found.append(
                f"The graph finds only {self.recall:.1%} of the exact best FDEs: raise {self.search.kind} m or "
                "ef, or use backend 'exact'."
            )
        if self.fitted_on_too_few:
            found.append(
                f"The encoder's maps were learned from only {self.fitted_on} of now {len(self.search)} "
                "documents: rebuild() learns them again."
            )
        if self.profile is not None and self.profile.warning is not None:
            found.append(self.profile.warning)
        if self.first_stage is not None and self.first_stage.warning is not None:
            found.append(self.first_stage.warning)
        return found

    # -- keeping --------------------------------------------------------------

    def save(self, folder: Path, graph: str | None = None) -> dict[str, Any]:
        """Write the vectors; return what :meth:`load` needs beside them.

        Parameters
        ----------
        folder : Path
        graph : str, optional
            What the graph's file is called where it stays: then only what it lacks is written.
        """
        if graph is None:
            self.search.save(folder)
        else:
            self.search.save_added(folder)
        return {
            **({} if graph is None else {"graph": graph}),
            "kind": self.search.kind,
            "fitted_on": self.fitted_on,
            "recall": self.recall,
            "recall_size": self.recall_size,
            "first_stage": None if self.first_stage is None else self.first_stage.to_dict(),
            "profile": None if self.profile is None else self.profile.save(folder),
        }

    @classmethod
    def load(
        cls,
        folder: Path,
        encoder: Encoder,
        settings: IndexSettings,
        state: dict[str, Any],
        removed: NDArray[np.int64],
    ) -> CandidateSearch:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        folder : Path
        encoder : Encoder
        settings : IndexSettings
        state : dict
            What :meth:`save` returned; a "graph" is relative to the folder of `folder`.
        removed : int64 (n,)
            Rows that are not to be found any more, whatever the file says.

        Raises
        ------
        ValueError, KeyError
            For a damaged file, or one that does not fit the encoder and the settings.
        """
        loaded = cls(encoder, settings, state["fitted_on"])
        kind = state["kind"]
        graph = state.get("graph")
        file = None if graph is None else folder.parent / graph
        saved = SavedState(settings.search_settings(kind), removed, file)
        loaded.search = SEARCHES[kind].load(folder, encoder.config.vector_dimension, saved)
        loaded.recall, loaded.recall_size = state["recall"], state["recall_size"]
        measured = state["first_stage"]
        loaded.first_stage = None if measured is None else FirstStageRecall(**measured)
        counts = state.get("profile")
        loaded.profile = None if counts is None else SampleProfile.load(folder, counts)
        return loaded
