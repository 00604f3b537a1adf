"""CandidateSearch: the first stage, which searches the documents' vectors."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.sampling import MAX_FIT_DOCUMENTS
from ..encoders.base import Encoder
from ..mips import SEARCHES, SavedState, VectorSearch, make_search
from ..mips.base import Guard, Keep, Saved, at_once
from ..utils.parallel import split_by_count
from .recall import MAX_RANKED, Calibration, Level
from .settings import IndexSettings
from .windows import MeasuredWindows

#: With backend "auto", number of vectors from which codes are scanned.  With fewer vectors, a scan is also faster, but
#: it needs more candidates.  Ranking these costs more time than the scan saves: `python -m experiments first-stage`.
SCAN_FROM = 8192

# Bytes of vectors per encoded block.
_BLOCK_BYTES = 128 << 20


class CandidateSearch:
    """The documents' vectors by row number: encode documents, and find rows for queries.

    Changing a copy (:func:`copy.copy`) does not change the original, see :class:`VectorSearch`.  `encoder` was
    fitted on `fitted_on` of these documents; 0 if it was fitted elsewhere.
    """

    def __init__(self, encoder: Encoder, settings: IndexSettings, fitted_on: int = 0) -> None:
        self.encoder, self.settings, self.fitted_on = encoder, settings, fitted_on
        self.windows: MeasuredWindows | None = None
        #: The first row that was added after the fit.
        self.fitted_rows = 0
        self.calibration: Calibration | None = None
        self.search = self._new_search("exact" if settings.backend == "auto" else settings.backend)

    def __copy__(self) -> CandidateSearch:
        copied = CandidateSearch.__new__(CandidateSearch)
        vars(copied).update(vars(self), search=copy(self.search))
        return copied

    def _new_search(self, kind: str) -> VectorSearch:
        return make_search(kind, self.encoder.config.vector_dimension, self.settings.hnsw)

    def add(
        self,
        rows: NDArray[np.int64],
        documents: MultiVectors,
        threads: int | None = None,
        guard: Guard = at_once,
    ) -> None:
        """Encode `documents` and add their vectors under `rows`, except those without tokens.

        If it fails, some of them may have been added.  `guard` calls functions while no thread searches.
        """
        filled = documents.lengths > 0
        rows, documents = rows[filled], documents[filled]
        for start, stop in self._blocks(len(rows)):
            self._change_to_scan(len(self.search) + stop - start, threads)
            vectors = self.encoder.encode_documents(documents[start:stop], threads=threads)
            self.search.add(rows[start:stop], vectors, threads, guard)

    def _blocks(self, count: int) -> list[tuple[int, int]]:
        return split_by_count(count, _BLOCK_BYTES // (4 * self.encoder.config.vector_dimension))

    def _change_to_scan(self, size: int, threads: int | None) -> None:
        """Replace an exact search by a scan if "auto" chooses one for `size` vectors."""
        before = self.search
        if self.settings.backend != "auto" or before.kind == "scan" or size < SCAN_FROM:
            return
        scan, rows = self._new_search("scan"), before.labels()
        for start, stop in self._blocks(len(rows)):
            scan.add(rows[start:stop], before.vectors(rows[start:stop]), threads)
        self.search, self.windows = scan, None  # measured again

    def find(
        self,
        queries: MultiVectors,
        count: int,
        allowed: NDArray[np.int64] | None = None,
        threads: int | None = None,
        *,
        ef: int | None = None,
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Return up to `count` rows of `allowed` per query, best first, and their products (default: of all rows)."""
        vectors, most = self.encoder.encode_queries(queries, threads=threads), max(1, len(self.search))
        labels, scores = self.search.search(vectors, min(count, most), allowed, threads, ef=ef)
        pairs = list(zip(labels, scores, strict=True))
        if (labels[:, -1] >= 0).all():
            return pairs
        return [(rows[rows >= 0], own[rows >= 0]) for rows, own in pairs]  # a row is filled up with -1

    def level(self, recall: float, k: int) -> Level | None:
        """Return the stopping rule for a mean recall; None to rank every document of a small collection."""
        if self.calibration is not None:
            return self.calibration.level(recall, k)
        if len(self.search) <= MAX_RANKED:
            return None
        raise ValueError(
            f"recall={recall} needs a calibration, which this index does not have. Call calibrate with real queries."
        )

    @property
    def fitted_on_too_few(self) -> bool:
        """True if maps were fitted on few documents, and on less than half of the current ones."""
        learned = self.encoder.config.needs_fit_sample and self.fitted_on > 0
        return learned and self.fitted_on < min(MAX_FIT_DOCUMENTS, len(self.search) / 2)

    # -- saving ---------------------------------------------------------------

    def save(self, folder: Path, keep: Keep) -> Saved:
        """Write the vectors that no kept file contains; return the state for :meth:`load`, and the kept files."""
        state, kept = self.search.save(folder, keep)
        return {
            "kind": self.search.kind,
            "search": state,
            "kept": kept,
            "fitted_on": self.fitted_on,
            "recall_size": 0 if self.windows is None else self.windows.size,
            "windows": None if self.windows is None else self.windows.to_dict(),
            "fitted_rows": self.fitted_rows,
            "compared": self.encoder.compared,
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
        }, kept

    @classmethod
    def load(
        cls,
        folder: Path,
        encoder: Encoder,
        settings: IndexSettings,
        state: dict[str, Any],
        live: NDArray[np.int64],
    ) -> CandidateSearch:
        """Load a search from the files and the state of :meth:`save`.

        `live` are the rows to find; the files may contain others.
        Raises ValueError or KeyError for damaged files, or files that do not fit the encoder and the settings.
        """
        loaded = cls(encoder, settings, int(state["fitted_on"]))
        saved = SavedState(
            state["search"], [folder.parent / name for name in state["kept"]], settings.hnsw, live
        )
        loaded.search = SEARCHES[state["kind"]].load(folder, encoder.config.vector_dimension, saved)
        size = int(state["recall_size"])
        if state.get("windows") is not None:
            loaded.windows = MeasuredWindows.from_dict(state["windows"], size)
        loaded.fitted_rows, encoder.compared = int(state.get("fitted_rows", 0)), state.get("compared")
        if state.get("calibration") is not None:
            loaded.calibration = Calibration.from_dict(state["calibration"])
        return loaded
