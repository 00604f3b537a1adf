"""CandidateSearch: encode documents and queries, and find the candidates of a query."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.batches import MAX_FIT_DOCUMENTS
from ..data.multivectors import MultiVectors
from ..fde.encoder import FDEEncoder
from ..mips import SEARCHES, make_search
from ..mips.base import Guard, Keep, Saved, SavedState, VectorSearch, at_once
from ..utils.hints import Argument, Hint, Message
from ..utils.parallel import split_by_count
from .calibration import MAX_RANKED, Calibration, Level, MeasuredWindows
from .settings import IndexSettings
from .token_store import Ranked, Rows

#: With backend "auto", number of floats of all vectors from which codes are scanned:
#: 2,048 vectors of 512 floats.  With fewer, a scan saves hardly any time, and exact
#: search misses no candidate: `python -m experiments pipeline`.
SCAN_FROM = 1 << 20

# Bytes of vectors per encoded block.
_BLOCK_BYTES = 128 << 20


def auto_kind(count: int, vector_dimension: int) -> str:
    """Return the kind of search that backend "auto" chooses for `count` vectors."""
    return "scan" if count * vector_dimension >= SCAN_FROM else "exact"


@dataclass(frozen=True, eq=False)
class CandidateSearch:
    """The documents' vectors by row number, and the encoder that made them.

    A value: :meth:`added` and :meth:`without` return another one.  They share the
    vectors, as copies of a :class:`muvera.mips.base.VectorSearch` do.

    Parameters
    ----------
    encoder : FDEEncoder
        Fitted.
    settings : IndexSettings
    search : VectorSearch
        The vectors of the documents that have tokens.
    fitted_on : int
        Number of these documents when the encoder was fitted; 0 if it was fitted
        elsewhere.
    fitted_rows : int
        The first row that was added after the encoder was fitted.
    windows : MeasuredWindows, optional
        The measured recall.
    calibration : Calibration, optional
        When to stop ranking for a mean recall.
    """

    encoder: FDEEncoder
    settings: IndexSettings
    search: VectorSearch
    fitted_on: int = 0
    fitted_rows: int = 0
    windows: MeasuredWindows | None = None
    calibration: Calibration | None = None

    @classmethod
    def empty(cls, encoder: FDEEncoder, settings: IndexSettings) -> CandidateSearch:
        """Return a search without vectors."""
        kind = "exact" if settings.backend == "auto" else settings.backend
        return cls(encoder, settings, make_search(kind, encoder.config.vector_dimension, settings.hnsw))

    # -- changing -------------------------------------------------------------

    def added(
        self, rows: Rows, documents: MultiVectors, threads: int | None = None, guard: Guard = at_once
    ) -> CandidateSearch:
        """Return a search that also has the vectors of these documents.

        Documents without tokens get no vector.

        Parameters
        ----------
        rows : ndarray (n,), int64
            Their row numbers, above all earlier ones.
        documents : MultiVectors
        threads : int, optional
        guard : callable
            Calls a function while no other thread searches a graph that is shared.
        """
        filled = documents.lengths > 0
        rows = rows[filled]
        documents = documents[filled]
        search = copy(self.search)
        windows = self.windows
        for start, stop in self._blocks(len(rows)):
            if self._outgrown(search, len(search) + stop - start):
                search = self._scan_of(search, threads)
                windows = None  # measured again
            vectors = self.encoder.encode_documents(documents[start:stop], threads=threads)
            search.add(rows[start:stop], vectors, threads, guard)
        return replace(self, search=search, windows=windows)

    def without(self, rows: Rows) -> CandidateSearch:
        """Return a search that does not find these rows.

        Rows without vectors are ignored.
        """
        search = copy(self.search)
        search.remove(search.existing(rows))
        return replace(self, search=search)

    def _blocks(self, count: int) -> list[tuple[int, int]]:
        return split_by_count(count, _BLOCK_BYTES // (4 * self.encoder.config.vector_dimension))

    def _outgrown(self, search: VectorSearch, size: int) -> bool:
        """Return True if "auto" would replace `search` by a scan at `size` vectors."""
        if self.settings.backend != "auto" or search.kind == "scan":
            return False
        return auto_kind(size, self.encoder.config.vector_dimension) == "scan"

    def _scan_of(self, search: VectorSearch, threads: int | None) -> VectorSearch:
        """Return a scan of the vectors of an exact search."""
        scan = make_search("scan", self.encoder.config.vector_dimension, self.settings.hnsw)
        rows = search.labels()
        for start, stop in self._blocks(len(rows)):
            scan.add(rows[start:stop], search.vectors(rows[start:stop]), threads)
        return scan

    # -- searching ------------------------------------------------------------

    def find(
        self,
        queries: MultiVectors,
        count: int,
        allowed: Rows | None = None,
        threads: int | None = None,
        *,
        ef: int | None = None,
    ) -> list[Ranked]:
        """Return the candidates of each query.

        Parameters
        ----------
        queries : MultiVectors
        count : int
            Maximum number of candidates for each query.  More raise recall.
        allowed : ndarray (n,), int64, optional
            Find only these rows.  Default: all.
        threads : int, optional
        ef : int, optional
            Candidates that a graph search keeps.  More raise recall and take longer.

        Returns
        -------
        list of tuple of ndarray
            For each query, rows int64 (c,) and products float32 (c,), best first.
        """
        vectors = self.encoder.encode_queries(queries, threads=threads)
        most = max(1, len(self.search))
        labels, products = self.search.search(vectors, min(count, most), allowed, threads, ef=ef)
        found = (labels >= 0).sum(axis=1).tolist()  # unused places have label -1
        return [(labels[q, :number], products[q, :number]) for q, number in enumerate(found)]

    def level(self, recall: float, k: int) -> Level | None:
        """Return the stopping rule for a mean recall.

        None for a collection too small for one.
        """
        if self.calibration is not None:
            return self.calibration.level(recall, k)
        if len(self.search) <= MAX_RANKED:
            return None
        raise ValueError(
            Message(
                Argument("recall", f"{recall}"),
                " needs a calibration, which this index does not have. ",
                Hint("calibrate", "Call calibrate with real queries."),
            )
        )

    @property
    def fitted_on_too_few(self) -> bool:
        """True if maps were fitted on few documents, and on less than half of them."""
        learned = self.encoder.config.needs_fit_sample and self.fitted_on > 0
        return learned and self.fitted_on < min(MAX_FIT_DOCUMENTS, len(self.search) / 2)

    # -- saving ---------------------------------------------------------------

    def save(self, folder: Path, keep: Keep) -> Saved:
        """Write vectors not already saved.

        Return the state for :meth:`load`, and the kept files.
        """
        state, kept = self.search.save(folder, keep)
        return {
            "kind": self.search.kind,
            "search": state,
            "kept": kept,
            "fitted_on": self.fitted_on,
            "recall_size": 0 if self.windows is None else self.windows.size,
            "windows": None if self.windows is None else self.windows.to_dict(),
            "fitted_rows": self.fitted_rows,
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
        }, kept

    @classmethod
    def load(
        cls, folder: Path, encoder: FDEEncoder, settings: IndexSettings, state: dict[str, Any], live: Rows
    ) -> CandidateSearch:
        """Load the files and the state of :meth:`save`.

        Parameters
        ----------
        folder : Path
            The generation's folder.
        encoder : FDEEncoder
        settings : IndexSettings
        state : dict
        live : ndarray (n,), int64
            Rows of documents that are not deleted; only these are found.

        Raises
        ------
        KeyError, TypeError, ValueError
            For a damaged file or state.
        """
        kept = [folder.parent / name for name in state["kept"]]
        saved = SavedState(state["search"], kept, settings.hnsw, live)
        windows: MeasuredWindows | None = None
        if state.get("windows") is not None:
            windows = MeasuredWindows.from_dict(state["windows"], int(state["recall_size"]))
        calibration: Calibration | None = None
        if state.get("calibration") is not None:
            calibration = Calibration.from_dict(state["calibration"])
        return cls(
            encoder,
            settings,
            SEARCHES[state["kind"]].load(folder, encoder.config.vector_dimension, saved),
            fitted_on=int(state["fitted_on"]),
            fitted_rows=int(state.get("fitted_rows", 0)),
            windows=windows,
            calibration=calibration,
        )
