"""CandidateSearch: encode documents and queries, and find the candidates of a query."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.batches import MAX_FIT_DOCUMENTS
from ..data.multivectors import MultiVectors
from ..fde.encoder import FDEEncoder
from ..mips import SEARCHES, make_search
from ..mips.base import Keep, Saved, SavedState, VectorSearch
from ..utils.hints import Argument, Hint, Message
from ..utils.parallel import split_by_count
from .calibration import MAX_RANKED, Calibration, Dial, MeasuredWindows, distinct_tokens
from .settings import IndexSettings, num_candidates
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
        The fitted encoder of documents and queries.
    settings : IndexSettings
        Which kind of search to use (`backend`, `hnsw`).
    search : VectorSearch
        The vectors of the documents that have tokens.
    fitted_on : int
        Number of these documents when the encoder was fitted; 0 if it was fitted
        elsewhere.
    fitted_rows : int
        The first row that was added after the encoder was fitted.
    windows : MeasuredWindows, optional
        The recall of windows, as last measured.
    calibration : Calibration, optional
        When to stop ranking for a mean recall.
    added_calibration : Calibration, optional
        The same, measured with windows of documents that were added after the fit.
    """

    encoder: FDEEncoder
    settings: IndexSettings
    search: VectorSearch
    fitted_on: int = 0
    fitted_rows: int = 0
    windows: MeasuredWindows | None = None
    calibration: Calibration | None = None
    added_calibration: Calibration | None = None

    @classmethod
    def empty(cls, encoder: FDEEncoder, settings: IndexSettings) -> CandidateSearch:
        """Return a search without vectors."""
        kind = "exact" if settings.backend == "auto" else settings.backend
        return cls(encoder, settings, make_search(kind, encoder.config.vector_dimension, settings.hnsw))

    # -- changing -------------------------------------------------------------

    def added(self, rows: Rows, documents: MultiVectors, threads: int | None = None) -> CandidateSearch:
        """Return a search that also has the vectors of these documents.

        Documents without tokens get no vector.  `rows`, int64 (n,), are above all
        earlier rows.
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
            search.add(rows[start:stop], vectors, threads)
        return replace(self, search=search, windows=windows)

    def without(self, rows: Rows) -> CandidateSearch:
        """Return a search that does not find these rows.

        Rows without vectors are ignored.
        """
        search = copy(self.search)
        search.remove(search.existing(rows))
        return replace(self, search=search)

    def renumbered(self, live: Rows) -> CandidateSearch:
        """Return this search with the first added row that a rebuild gives it.

        `live`, int64 (n,), are the rows that the rebuild keeps, ascending.
        """
        return replace(self, fitted_rows=int(np.searchsorted(live, self.fitted_rows)))

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
        """Return each query's candidates: rows int64 (c,) and products float32 (c,).

        They are at most `count` rows, best first, and only rows of `allowed`, int64
        (n,), if it is given.  A larger `count` raises recall.  A graph search keeps
        `ef` candidates: more raise recall and take longer.
        """
        vectors = self.encoder.encode_queries(queries, threads=threads)
        most = max(1, len(self.search))
        labels, products = self.search.search(vectors, min(count, most), allowed, threads, ef=ef)
        # Unused places have the label -1.
        found = [np.count_nonzero(row) for row in labels >= 0]
        return [(labels[q, :number], products[q, :number]) for q, number in enumerate(found)]

    def dials(self, recall: float, k: int, queries: MultiVectors) -> list[Dial] | None:
        """Return when to stop for a mean recall, by the calibration that ranks more.

        `k` is the number of documents to return.  The result has a dial for each query.
        Return None for a collection too small for a calibration, and raise ValueError
        if a larger collection has none.
        """
        if self.calibration is None:
            if len(self.search) <= MAX_RANKED:
                return None
            raise ValueError(
                Message(
                    Argument("recall", f"{recall}"),
                    " needs a calibration, which this index does not have. ",
                    Hint("calibrate", "Call calibrate with real queries."),
                )
            )
        counts = distinct_tokens(queries).tolist()
        dials = {count: self._dial(recall, k, count) for count in set(counts)}
        return [dials[count] for count in counts]

    def _dial(self, recall: float, k: int, distinct: int) -> Dial:
        groups = [each.group(distinct) for each in self.calibrations]
        dials = [Dial(group, group.level(recall, k)) for group in groups]
        most = max(dials, key=lambda dial: dial.level.fixed)
        # Real queries about documents of another kind find less than windows of these
        # documents.
        added = None if self.drift_warning is not None else dials[-1].level.added
        return Dial(most.group, most.level._replace(added=added))

    def enough(self, k: int) -> int:
        """Return the number of candidates that a search ranks by default.

        It is DEFAULT_CANDIDATES, or more if a calibration found that so many do not
        contain DEFAULT_RECALL of the `k` best.
        """
        return max([num_candidates(k, None), *(each.enough(k) for each in self.calibrations)])

    @property
    def calibrations(self) -> list[Calibration]:
        """The calibration, then the added documents' calibration, if there are any."""
        return [each for each in (self.calibration, self.added_calibration) if each is not None]

    def newer(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Return which rows were added after the encoder was fitted, bool of any shape.

        None of them, if the encoder hardly depends on its sample.
        """
        return (rows >= self.fitted_rows) & self.encoder.config.needs_fit_sample

    def unmeasured(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which newer rows no window has measured yet, bool of any shape."""
        stop = 0 if self.windows is None else self.windows.stop
        return self.newer(rows) & (rows >= stop)

    @property
    def drift_warning(self) -> str | None:
        """A warning if some of the added documents seem to be of another kind."""
        if self.calibration is None or self.added_calibration is None:
            return None
        return self.calibration.warning(self.added_calibration)

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
            "calibration": _saved(self.calibration),
            "added_calibration": _saved(self.added_calibration),
        }, kept

    @classmethod
    def load(
        cls, folder: Path, encoder: FDEEncoder, settings: IndexSettings, state: dict[str, Any], live: Rows
    ) -> CandidateSearch:
        """Load the files and the state of :meth:`save` from a generation's folder.

        Searches find only the rows `live`, int64 (n,): the documents that are not
        deleted.  Raise KeyError, TypeError or ValueError for a damaged file or state.
        """
        kept = [folder.parent / name for name in state["kept"]]
        saved = SavedState(state["search"], kept, settings.hnsw, live)
        windows: MeasuredWindows | None = None
        if state.get("windows") is not None:
            windows = MeasuredWindows.from_dict(state["windows"], int(state["recall_size"]))
        return cls(
            encoder,
            settings,
            SEARCHES[state["kind"]].load(folder, encoder.config.vector_dimension, saved),
            fitted_on=int(state["fitted_on"]),
            fitted_rows=int(state.get("fitted_rows", 0)),
            windows=windows,
            calibration=_loaded(state.get("calibration")),
            added_calibration=_loaded(state.get("added_calibration")),
        )


def _saved(calibration: Calibration | None) -> dict[str, Any] | None:
    return None if calibration is None else calibration.to_dict()


def _loaded(values: dict[str, Any] | None) -> Calibration | None:
    return None if values is None else Calibration.from_dict(values)
