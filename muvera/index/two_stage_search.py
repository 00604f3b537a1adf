"""IndexContents: ids, tokens and vectors of documents.

Vectors find candidates, tokens rank them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.batches import MAX_FIT_DOCUMENTS
from ..data.multivectors import MultiVectors
from ..data.ranking import Ranking
from ..data.validation import Ids, running_total
from ..fde.config import FDEConfig
from ..fde.encoder import FDEEncoder
from ..kernels.selection import STOPPED
from ..kernels.tile import LANES
from ..mips import SEARCHES, make_search
from ..mips.base import Guard, Keep, Saved, SavedState, VectorSearch, at_once
from ..reranking.codecs import TokenCodec
from ..reranking.coded_vectors import CodedVectors
from ..reranking.pruning import ALL, RerankOptions, Stop, rank_short
from ..utils.checks import counted, require_int
from ..utils.hints import Argument, Hint, Message
from ..utils.parallel import run_in_ranges, split_by_count, split_by_weight, stage, thread_count
from .generations import Generation
from .id_map import IdMap
from .recall import (
    BEST,
    CANDIDATES,
    EVERYTHING,
    MAX_RANKED,
    Calibration,
    FirstStage,
    Level,
    MeasuredWindows,
    calibrate_on_windows,
    measure,
    require_recall,
)
from .settings import IndexInfo, IndexSettings
from .token_store import Ranked, Rows, TokenLevels

#: With backend "auto", number of floats of all vectors from which codes are scanned:
#: 2,048 vectors of 512 floats.  With fewer, a scan saves hardly any time, and exact
#: search misses no candidate: `python -m experiments pipeline`.
SCAN_FROM = 1 << 20

_BLOCK_BYTES = 128 << 20  # of vectors per encoded block

DEFAULT_K, DEFAULT_CANDIDATES = BEST, CANDIDATES

#: Minimum number of documents to fit an encoder with maps: maps fitted on fewer
#: transfer poorly.
MIN_FIT_DOCUMENTS = 256

# Queries whose candidates are read from disk while earlier ones are ranked; queries per
# task, of those that search vectors and of those that rank; pairs of a short query and
# a candidate that are ranked together.
_AHEAD, _TOGETHER, _RANKED, _PAIRS = 4, 16, 4, 1 << 18

_NOTHING = np.empty(0, np.int64), np.empty(0, np.float32)  # the best of no rows


def auto_kind(count: int, vector_dimension: int) -> str:
    """Return the kind of search that backend "auto" chooses for `count` vectors."""
    return "scan" if count * vector_dimension >= SCAN_FROM else "exact"


class CandidateSearch:
    """The documents' vectors by row number.

    Changing a copy (:func:`copy.copy`) does not change the original.
    """

    def __init__(self, encoder: FDEEncoder, settings: IndexSettings) -> None:
        self.encoder, self.settings = encoder, settings
        #: Number of these documents that the encoder was fitted on (0: fitted
        #: elsewhere), and the first later row.
        self.fitted_on = self.fitted_rows = 0
        self.windows: MeasuredWindows | None = None
        self.calibration: Calibration | None = None
        self.search = self._new_search("exact" if settings.backend == "auto" else settings.backend)

    def __copy__(self) -> CandidateSearch:
        copied = CandidateSearch.__new__(CandidateSearch)
        vars(copied).update(vars(self), search=copy(self.search))
        return copied

    def _new_search(self, kind: str) -> VectorSearch:
        return make_search(kind, self.encoder.config.vector_dimension, self.settings.hnsw)

    def add(
        self, rows: Rows, documents: MultiVectors, threads: int | None = None, guard: Guard = at_once
    ) -> None:
        """Encode documents and add their vectors, except those without tokens; after a failure, some may be added.

        `guard` calls functions while no thread searches.
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
        if self.settings.backend != "auto" or before.kind == "scan":
            return
        if auto_kind(size, self.encoder.config.vector_dimension) != "scan":
            return
        scan, rows = self._new_search("scan"), before.labels()
        for start, stop in self._blocks(len(rows)):
            scan.add(rows[start:stop], before.vectors(rows[start:stop]), threads)
        self.search, self.windows = scan, None  # measured again

    def find(
        self,
        queries: MultiVectors,
        count: int,
        allowed: Rows | None = None,
        threads: int | None = None,
        *,
        ef: int | None = None,
    ) -> list[Ranked]:
        """Return up to `count` rows of `allowed` (default: all) per query, best first, and their products."""
        vectors, most = self.encoder.encode_queries(queries, threads=threads), max(1, len(self.search))
        labels, scores = self.search.search(vectors, min(count, most), allowed, threads, ef=ef)
        counts = (labels >= 0).sum(axis=1).tolist()  # unused places have label -1
        return [(labels[q, :own], scores[q, :own]) for q, own in enumerate(counts)]

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
        """True if maps were fitted on few documents, and on less than half of the current ones."""
        learned = self.encoder.config.needs_fit_sample and self.fitted_on > 0
        return learned and self.fitted_on < min(MAX_FIT_DOCUMENTS, len(self.search) / 2)

    def save(self, folder: Path, keep: Keep) -> Saved:
        """Write the vectors that no kept file contains.

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

        Only the rows `live` are found.
        """
        loaded = cls(encoder, settings)
        loaded.fitted_on, loaded.fitted_rows = int(state["fitted_on"]), int(state.get("fitted_rows", 0))
        saved = SavedState(
            state["search"], [folder.parent / name for name in state["kept"]], settings.hnsw, live
        )
        loaded.search = SEARCHES[state["kind"]].load(folder, encoder.config.vector_dimension, saved)
        size = int(state["recall_size"])
        if state.get("windows") is not None:
            loaded.windows = MeasuredWindows.from_dict(state["windows"], size)
        if state.get("calibration") is not None:
            loaded.calibration = Calibration.from_dict(state["calibration"])
        return loaded


@dataclass(frozen=True)
class SearchPlan:
    """Validated arguments of a search; see :meth:`muvera.MuveraIndex.search`."""

    k: int = DEFAULT_K
    ids: list[Any] | None = None
    candidates: int | None = None
    recall: float | None = None
    ef: int | None = None
    rescore: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        require_int("k", self.k, 1)
        for name in ("candidates", "rescore"):
            value = getattr(self, name)
            if value is not None and require_int(name, value, 1) < self.k:
                number = Argument(name, f"{value}")
                raise ValueError(Message(number, " must be at least ", Argument("k", f"{self.k}"), "."))
        if self.ef is not None:
            require_int("ef", self.ef, 1)
        require_recall(self.recall, self.candidates)
        thread_count(self.threads)

    @property
    def num_candidates(self) -> int:
        """Number of candidates from the vectors."""
        return max(DEFAULT_CANDIDATES, self.k) if self.candidates is None else self.candidates


class Proposal(NamedTuple):
    """The rows to rank for each query, most promising first; the number to return; when to stop.

    Without a `level`, the expected recall is unknown; without `stops`, all rows are
    ranked.
    """

    rows: Sequence[Rows]
    k: int
    level: Level | None = None
    stops: Sequence[Stop] = ()

    def expected_recall(self, query: int) -> float | None:
        """Return the mean recall of the calibration's queries that ended like this one: early, or at the cap."""
        if self.level is None:
            return None
        early = self.stops and self.stops[query].state[STOPPED]
        return self.level.stopped if early else self.level.capped


class IndexContents:
    """Ids, tokens and vectors of documents, each under a row number that is never used twice.

    A copy (:func:`copy.copy`) is cheap, and changing it does not change the original.
    Only the latest contents may be copied for a change.
    """

    def __init__(
        self,
        config: FDEConfig,
        settings: IndexSettings,
        *,
        encoder: FDEEncoder | None = None,
        first_id: int = 0,
        codec: TokenCodec | None = None,
    ) -> None:
        self.config, self.settings = config, settings
        self._encoder = encoder
        self.ids = IdMap(first_id)
        self.store = TokenLevels(settings, config.dimension, codec)
        self.candidates: CandidateSearch | None = None
        #: By folder: the generation last read or written, and those that saves may have
        #: committed (copies share it).
        self.generations: Mapping[Path, Generation] = {}
        self.attempted: dict[Path, set[Generation]] = {}
        #: Minimum number of documents to fit the encoder; a build waits for more, see
        #: :meth:`finish`.
        self.fit_from = MIN_FIT_DOCUMENTS
        self._lengths: NDArray[np.int64] | None = None
        self._searchable: tuple[Rows, int] | None = None

    def __copy__(self) -> IndexContents:
        copied = IndexContents.__new__(IndexContents)
        vars(copied).update(vars(self))
        copied.ids, copied.store, copied.candidates = copy(self.ids), copy(self.store), copy(self.candidates)
        return copied

    @property
    def encoder(self) -> FDEEncoder | None:
        """The encoder in use, or the one that was passed if the collection is still small."""
        return self._encoder if self.candidates is None else self.candidates.encoder

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row; cached until the next change."""
        if self._lengths is None:
            self._lengths = self.store.levels[0].lengths
        return self._lengths

    @property
    def searchable(self) -> tuple[Rows, int]:
        """Live rows with tokens, ascending, and their total number of tokens.

        Cached until the next change.
        """
        if self._searchable is None:
            live, lengths = self.ids.live, self.lengths[self.ids.live]
            self._searchable = live[lengths > 0], int(lengths.sum())
        return self._searchable

    def propose(self, queries: MultiVectors, plan: SearchPlan) -> Proposal:
        """Return the rows to rank for each query; a graph must not change meanwhile."""
        self.store.require_rescore(plan.rescore)
        rows, tokens = self.searchable
        k, allowed = min(plan.k, len(rows)), None
        if plan.ids is not None:
            rows = np.sort(self.ids.rows(plan.ids, "ignore"))
            rows = allowed = rows[self.lengths[rows] > 0]
            tokens = int(self.lengths[rows].sum())
        candidates = self.candidates
        level = None if candidates is None or plan.recall is None else candidates.level(plan.recall, k)
        count = plan.num_candidates if level is None else level.cap
        if candidates is None or len(rows) <= count or tokens <= self.settings.exact_tokens:
            return Proposal([rows] * len(queries), k, EVERYTHING)
        find = partial(candidates.find, count=count, allowed=allowed, ef=plan.ef)
        if len(queries) < 2 * _TOGETHER or thread_count(plan.threads) == 1:
            pairs = find(queries, threads=plan.threads)
        else:
            pairs = [_NOTHING] * len(queries)

            def work(start: int, stop: int) -> None:
                pairs[start:stop] = find(queries[start:stop], threads=1)

            run_in_ranges(work, split_by_count(len(queries), _TOGETHER), plan.threads)
        stops: Sequence[Stop] = ()
        if level is not None and candidates.calibration is not None:
            stops = candidates.calibration.stops(level, [own for _, own in pairs], queries.lengths, k)
        return Proposal([own for own, _ in pairs], k, level, stops)

    def rank(
        self, queries: MultiVectors, proposal: Proposal, threads: int | None, rescore: int | None = None
    ) -> list[Ranking]:
        """Rank each query's rows; the ranking of a query without tokens is empty."""
        best = self.best_rows(queries, proposal.rows, proposal.k, threads, rescore, proposal.stops)
        exact = self.store.floats is not None  # otherwise scores are those of decoded tokens
        return [
            Ranking(self.ids.of(rows), scores, exact, proposal.expected_recall(q))
            for q, (rows, scores) in enumerate(best)
        ]

    def best_rows(
        self,
        queries: MultiVectors,
        rows: Sequence[Rows],
        k: int,
        threads: int | None,
        rescore: int | None = None,
        stops: Sequence[Stop] = (),
    ) -> list[Ranked]:
        """Return the `k` best of each query's rows, best first, and their scores."""
        best = [_NOTHING] * len(queries)
        own_threads = threads if len(queries) == 1 else 1
        lengths = queries.lengths.tolist()
        left = [q for q, tokens in enumerate(lengths) if tokens and len(rows[q])]
        if len(left) > 1 and self.store.codec is None and not stops:
            short = [q for q in left if lengths[q] <= LANES]
            left = [q for q in left if lengths[q] > LANES]
            counts = running_total([len(rows[q]) for q in short])
            for start, stop in split_by_weight(counts, _PAIRS, len(short)):
                own = short[start:stop]
                own_rows, runs_of = [rows[q] for q in own], self.store.float_runs
                results = rank_short(queries, np.array(own), own_rows, runs_of, k, threads)
                for q, result in zip(own, results, strict=True):
                    best[q] = result

        def work(start: int, stop: int) -> None:
            for i in range(start, stop):
                for q in left[i + _AHEAD : i + _AHEAD + 1]:
                    self.store.read_ahead(rows[q])
                q, options = left[i], RerankOptions(k, stop=stops[left[i]] if stops else ALL)
                best[q] = self.store.rank(queries[q], rows[q], options, own_threads, rescore=rescore)

        for q in left[:_AHEAD]:
            self.store.read_ahead(rows[q])
        run_in_ranges(work, split_by_count(len(left), _RANKED), threads)
        return best

    def append(
        self,
        ids: Ids,
        documents: MultiVectors,
        threads: int | None,
        codes: CodedVectors | None = None,
        guard: Guard = at_once,
    ) -> None:
        """Add documents, or replace those with these ids.

        `guard` calls functions while no thread searches.
        """
        if len(documents) == 0:
            return
        replaced = self.ids.rows(ids.tolist(), "ignore")
        rows = np.arange(len(self.store), len(self.store) + len(documents))
        self.store.append(documents, threads, codes)
        if self.candidates is not None:
            self.candidates.add(rows, documents, threads, guard)
        self.ids.append(ids)
        self.remove(replaced)
        self._build_if_needed(threads)
        builds = self.fit_from > MIN_FIT_DOCUMENTS
        if self.candidates is not None or not builds:  # otherwise exact tokens are still needed
            self.store.fit_if_ready(threads)

    def _build_if_needed(self, threads: int | None) -> None:
        """Make vectors if the collection is large enough to need them and to fit the encoder."""
        rows, tokens = self.searchable
        if self.candidates is not None or tokens <= self.settings.exact_tokens:
            return
        if self._encoder is None and self.config.needs_fit_sample and len(rows) < self.fit_from:
            return
        self.candidates = self._encoded(self.config, rows, threads)

    def _encoded(self, config: FDEConfig, sample: Rows, threads: int | None) -> CandidateSearch:
        """Encode all documents.

        First fit the encoder on the rows `sample` if it is not fitted yet.
        """
        encoder = FDEEncoder(config) if self._encoder is None else self._encoder
        fits = encoder.needs_fit
        if fits:
            encoder.fit((texts for _, texts, _ in self.store.batches(sample)), threads=threads)
        candidates = CandidateSearch(encoder, self.settings)
        with stage("making vectors"):
            for batch, texts, _ in self.store.batches(self.ids.live):
                candidates.add(batch, texts, threads)
        if fits:
            candidates.fitted_on = len(candidates.search)
        candidates.fitted_rows = len(self.store)
        return candidates

    def remove(self, rows: Rows) -> None:
        """Delete documents."""
        self.ids.drop(rows)
        self._lengths = self._searchable = None
        if self.candidates is not None:
            search = self.candidates.search
            search.remove(search.existing(rows))  # rows without tokens have no vectors

    def finish(self, threads: int | None) -> None:
        """Finish a build: fit the encoder and the codec on all documents unless they are fitted, and measure."""
        self.fit_from = MIN_FIT_DOCUMENTS
        self._build_if_needed(threads)
        if self.candidates is not None and not self.candidates.fitted_on:
            self.candidates.fitted_rows = len(self.store)  # fitted elsewhere, so none is newer
        measure(self, threads)
        self.store.fit_if_ready(threads, tokens=1)
        self.store.flush()
        self.calibrate_if_stale(threads)

    def rebuilt(self, threads: int | None, staging: Path | None = None) -> IndexContents:
        """Return new contents without the rows of deleted documents.

        Fit the encoder again if it needs that.
        """
        current = self.candidates
        fits = current is not None and (current.fitted_on_too_few or self.drift_warning is not None)
        fresh = IndexContents(
            self.config,
            self.settings,
            encoder=None if fits else self.encoder,
            first_id=self.ids.next,
            codec=self.store.codec,
        )
        fresh.generations, fresh.attempted = self.generations, self.attempted
        fresh.fit_from, fresh.store.staging = sys.maxsize, staging
        for rows, texts, codes in self.store.batches(self.ids.live):
            fresh.append(self.ids.of(rows), texts, threads, codes)
        fresh.finish(threads)
        return fresh

    def calibrate_if_stale(self, threads: int | None) -> None:
        """Calibrate ``search(recall=)`` unless a calibration has these tokens and at least half as many documents."""
        if self.candidates is not None:
            last, size = self.candidates.calibration, len(self.searchable[0])
            if last is None or size > 2 * last.documents or last.tokens != self.store.ranked_by:
                self.candidates.calibration = calibrate_on_windows(self, threads)

    @property
    def first_stage(self) -> FirstStage:
        """The recall of the first stage, as last measured with windows of documents."""
        search = self.candidates
        if search is None or search.windows is None:
            return FirstStage()
        return search.windows.first_stage(self.searchable[0], search.fitted_rows)

    @property
    def drift_warning(self) -> str | None:
        """A warning if documents added after the encoder was fitted have a lower recall, otherwise None."""
        return self.first_stage.warning if self.config.needs_fit_sample else None

    @property
    def kind(self) -> str:
        """What a search reads: "all tokens", or the kind of vector search."""
        return "all tokens" if self.candidates is None else self.candidates.search.kind

    def info(self) -> IndexInfo:
        """See :meth:`muvera.MuveraIndex.info`."""
        live, deleted = len(self.ids), len(self.store) - len(self.ids)
        filled, tokens = self.searchable
        store, candidates = self.store.info(), self.candidates
        vectors = None if candidates is None else candidates.search.info()
        warnings = []
        if candidates is not None and candidates.fitted_on_too_few:
            warnings.append(
                f"The encoder was fitted on only {counted(candidates.fitted_on, 'document')}, but the index now has "
                f"{len(filled):,}. In Python, rebuild() fits it again."
            )
        first_stage, added, _ = self.first_stage
        low_recall = self.drift_warning or (None if first_stage is None else first_stage.warning)
        if low_recall is not None:
            warnings.append(low_recall)
        if candidates is None and tokens > self.settings.exact_tokens:
            warnings.append(
                f"The index has too few documents to fit the encoder ({len(filled)}), so searches read all tokens. Add "
                f"documents until there are {MIN_FIT_DOCUMENTS}, or give an encoder that was fitted on others."
            )
        if deleted > max(100, live // 2):
            warnings.append(f"{deleted} deleted documents still take memory. In Python, rebuild() frees it.")
        per_document = tokens * store["bytes_per_token"] / max(1, live)
        return IndexInfo(
            documents=live,
            empty_documents=live - len(filled),
            deleted_documents=deleted,
            tokens=tokens,
            dimension=self.config.dimension,
            search=self.kind,
            exact_tokens=self.settings.exact_tokens,
            encoder={**self.config.to_dict(), "vector_dimension": self.config.vector_dimension},
            vectors=vectors,
            token_codec=store,
            first_stage=first_stage,
            added=added,
            bytes_per_document=round(per_document + (vectors["bytes_per_vector"] if vectors else 0)),
            warnings=tuple(warnings),
        )
