"""IndexContents: ids, tokens and vectors of documents; vectors find candidates, tokens rank them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.ranking import Ranking
from ..data.sampling import MAX_FIT_DOCUMENTS
from ..data.validation import Ids
from ..encoders.base import Encoder, EncoderConfig
from ..encoders.registry import make_encoder
from ..mips.base import Guard, at_once
from ..reranking.codecs.base import CodedVectors, TokenCodec
from ..reranking.pruning import RerankOptions
from ..utils.checks import require_int
from ..utils.parallel import run_in_ranges, split_by_weight, thread_count
from .candidates import CandidateSearch
from .generations import Generation
from .id_map import GrowingArray, IdMap, Missing
from .info import FirstStageRecall, IndexInfo
from .sample_profile import SAMPLE_SIZE, SampleProfile
from .settings import IndexSettings
from .token_levels import TokenLevels
from .windows import document_windows, exact_best

__all__ = ["DEFAULT_CANDIDATES", "DEFAULT_K", "MIN_FIT_DOCUMENTS", "IndexContents", "SearchPlan"]

DEFAULT_K, DEFAULT_CANDIDATES = 10, 100

#: Minimum number of documents to fit an encoder with maps: maps fitted on fewer transfer poorly.
MIN_FIT_DOCUMENTS = 256

# Number of queries whose candidates are read from disk while earlier ones are ranked.
_AHEAD = 4

# Queries per task, of those that search vectors and of those that rank candidates.
_TOGETHER, _RANKED = 16, 4

# Windows to measure recall with, and the exact best documents to find.
_MAX_QUERIES, _BEST = 64, 10

# Limits of a recall measurement: multiplications for exact Chamfer similarity (a few seconds), minimum number
# of queries, and maximum number of tokens to read for each.
_PRODUCTS, _MIN_QUERIES, _MAX_TOKENS = 5 * 10**10, 16, 20_000_000


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """Validated arguments of a search; see :meth:`muvera.MuveraIndex.search`."""

    k: int = DEFAULT_K
    ids: list[Any] | None = None
    candidates: int | None = None
    patience: int | None = None
    ef: int | None = None
    rescore: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        require_int("k", self.k, 1)
        for name in ("candidates", "rescore"):
            value = getattr(self, name)
            if value is not None and require_int(name, value, 1) < self.k:
                raise ValueError(f"{name}={value} must be at least k={self.k}.")
        for name in ("ef", "patience"):
            if getattr(self, name) is not None:
                require_int(name, getattr(self, name), 1)
        thread_count(self.threads)

    @property
    def num_candidates(self) -> int:
        """Number of candidates from the vectors."""
        return max(DEFAULT_CANDIDATES, self.k) if self.candidates is None else self.candidates


class IndexContents:
    """Ids, tokens and vectors of documents, each under a row number that is never used twice.

    A copy (:func:`copy.copy`) is cheap, and changes to it leave the original as it is: an index changes a copy and
    then replaces its contents by it.  Only the latest contents may be copied for a change.

    Parameters
    ----------
    config : EncoderConfig
    settings : IndexSettings
    encoder : Encoder, optional
        A fitted encoder to use instead of fitting one on the documents.
    first_id : int
        The first id to give to documents without one.
    codec : TokenCodec, optional
        A fitted token codec to use instead of fitting one.
    """

    def __init__(
        self,
        config: EncoderConfig,
        settings: IndexSettings,
        *,
        encoder: Encoder | None = None,
        first_id: int = 0,
        codec: TokenCodec | None = None,
    ) -> None:
        self.config, self.settings = config, settings
        self._encoder = encoder
        self.ids = IdMap(first_id)
        self.store = TokenLevels(settings, config.dimension, codec)
        self.lengths = GrowingArray(np.empty(0, np.int64))
        self.candidates: CandidateSearch | None = None
        #: Generations by folder, as last read or written, and the attached files by name.
        self.generations: Mapping[Path, Generation] = {}
        self.attachments: Mapping[str, Path] = {}
        #: Marks the last change, for those who change something else together with the index.
        self.last_change: object = None
        self._building = False
        self._searchable: tuple[NDArray[np.int64], int] | None = None

    def __copy__(self) -> IndexContents:
        copied = IndexContents.__new__(IndexContents)
        vars(copied).update(
            vars(self),
            ids=copy(self.ids),
            store=copy(self.store),
            lengths=copy(self.lengths),
            candidates=copy(self.candidates),
        )
        return copied

    @property
    def encoder(self) -> Encoder | None:
        """The encoder in use, or the one that was passed if the collection is still small."""
        return self._encoder if self.candidates is None else self.candidates.encoder

    @property
    def searchable(self) -> tuple[NDArray[np.int64], int]:
        """Live rows with tokens, ascending, and their total number of tokens; cached until the next change."""
        if self._searchable is None:
            live = self.ids.live
            lengths = self.lengths.values[live]
            self._searchable = live[lengths > 0], int(lengths.sum())
        return self._searchable

    def rows_of(self, ids: list[Any], missing: Missing = "raise") -> list[int]:
        """Return the rows of `ids` in their order, see :meth:`IdMap.rows`."""
        return self.ids.rows(ids, missing)

    def texts(self, rows: list[int]) -> MultiVectors:
        """Return the documents at the distinct `rows`, in this order, with their ids."""
        wanted = np.array(rows, np.int64)
        ids = self.ids.of(wanted)
        if len(rows) == 0:
            return MultiVectors.from_arrays([], dimension=self.config.dimension).with_ids(ids)
        ascending = np.sort(wanted)
        return self.store.rows(ascending)[np.searchsorted(ascending, wanted)].with_ids(ids)

    def coded(self, rows: list[int]) -> CodedVectors:
        """Return the codes of the documents at the distinct `rows`, in this order."""
        if self.store.codes is None:
            raise ValueError(
                "This index stores no token codes. Build it with tokens='2bit' or another kind of codes."
            )
        if not rows:
            codec = self.store.codes.codec
            return CodedVectors(codec, np.empty((0, codec.bytes_per_token), np.uint8), [0])
        ascending = np.sort(np.array(rows, np.int64))
        return self.store.codes.rows(ascending)[np.searchsorted(ascending, rows)]

    # -- searching ------------------------------------------------------------

    def propose(
        self, queries: MultiVectors, plan: SearchPlan
    ) -> tuple[Sequence[NDArray[np.int64]], RerankOptions]:
        """Return the rows to rank for each query, and how; other threads must not change a graph meanwhile."""
        self.store.require_rescore(plan.rescore)
        rows, tokens = self.searchable
        k, allowed = min(plan.k, len(rows)), None
        if plan.ids is not None:
            rows = self.ids.existing_rows(plan.ids)
            rows = allowed = rows[self.lengths.values[rows] > 0]
            tokens = int(self.lengths.values[rows].sum())
        few = len(rows) <= plan.num_candidates or tokens <= self.settings.exact_tokens
        if self.candidates is None or few:
            return [rows] * len(queries), RerankOptions(k)
        options = RerankOptions(k, patience=plan.patience)
        find = self.candidates.find
        if len(queries) < 2 * _TOGETHER or thread_count(plan.threads) == 1:
            return find(queries, plan.num_candidates, allowed, plan.threads, ef=plan.ef), options
        found: dict[int, list[NDArray[np.int64]]] = {}

        def work(start: int, stop: int) -> None:
            found[start] = find(queries[start:stop], plan.num_candidates, allowed, 1, ef=plan.ef)

        ranges = split_by_weight(np.arange(len(queries) + 1), _TOGETHER, _TOGETHER)
        run_in_ranges(work, ranges, plan.threads)
        return [rows for start, _ in ranges for rows in found[start]], options

    def rank(
        self,
        queries: MultiVectors,
        rows: Sequence[NDArray[np.int64]],
        options: RerankOptions,
        threads: int | None,
        rescore: int | None = None,
    ) -> list[Ranking]:
        """Rank each query's rows, given with the likely best first; a query without tokens gets an empty ranking."""
        exact, single = self.store.exact, len(queries) == 1

        def ranking(q: int) -> Ranking:
            best, scores = np.empty(0, np.int64), np.empty(0, np.float32)
            if len(rows[q]) and len(queries[q]):
                own_threads = threads if single else 1
                best, scores = self.store.rank(queries[q], rows[q], options, own_threads, rescore=rescore)
            return Ranking(self.ids.of(best), scores, exact)

        for first in rows[:_AHEAD]:
            self.store.read_ahead(first)
        if single:
            return [ranking(0)]
        rankings = {}

        def work(start: int, stop: int) -> None:
            for q in range(start, stop):
                if q + _AHEAD < len(queries):
                    self.store.read_ahead(rows[q + _AHEAD])
                rankings[q] = ranking(q)

        run_in_ranges(work, split_by_weight(np.arange(len(queries) + 1), _RANKED, _RANKED), threads)
        return [rankings[q] for q in range(len(queries))]

    # -- changing -------------------------------------------------------------

    @contextmanager
    def building(self, threads: int | None, staging: Path | None = None) -> Iterator[None]:
        """Fill new contents: fit the encoder on up to MAX_FIT_DOCUMENTS documents instead of the first 256.

        Tokens are moved to the folder `staging` when there are many.
        """
        self.store.staging = staging
        self._building = True
        try:
            yield
        finally:
            self._building = False
        rows, tokens = self.searchable
        if self.candidates is None and self._needs_vectors(len(rows), tokens):
            self.candidates = self._build_candidates(self.ids.live, threads)
        self.measure(threads)
        self.store.fit_if_ready(threads, tokens=1)
        self.store.flush()

    def append(
        self,
        ids: Ids,
        documents: MultiVectors,
        threads: int | None,
        codes: CodedVectors | None = None,
        guard: Guard = at_once,
    ) -> None:
        """Add documents under these ids, replacing those that have them; `codes` are theirs, if known.

        `guard` calls functions while no thread searches.
        """
        if len(documents) == 0:
            return
        self._require_encoder_of_config()
        replaced = self.ids.existing_rows(ids)
        sizes = self._sizes_after(replaced, documents)
        self._skip_used_rows()
        rows = np.arange(len(self.store), len(self.store) + len(documents))
        self.store.append(documents, threads, codes)
        if self.candidates is not None:
            self.candidates.add(rows, documents, threads, guard)
        elif self._needs_vectors(*sizes):
            live = np.setdiff1d(self.ids.live, replaced, assume_unique=True)
            self.candidates = self._build_candidates(np.concatenate([live, rows]), threads)
        if self.candidates is not None or not self._building:  # else vectors are still made of exact tokens
            self.store.fit_if_ready(threads)
        self.lengths.extend(documents.lengths)
        self.ids.append(ids)
        self.remove(replaced)

    def _skip_used_rows(self) -> None:
        """Skip the row numbers that failed additions used in a graph."""
        count = 0 if self.candidates is None else self.candidates.search.next_label - len(self.store)
        if count > 0:
            self.store.append_empty(count)
            self.lengths.extend(np.zeros(count, np.int64))
            self.ids.reserve(count)

    def _require_encoder_of_config(self) -> None:
        encoder = self.encoder
        if encoder is not None and encoder.config != self.config:
            raise ValueError(
                f"The index's encoder was fitted for configuration {encoder.config.hash}, but the index has "
                f"{self.config.hash}: their vectors are not comparable. Build a new index."
            )

    def _sizes_after(self, replaced: NDArray[np.int64], documents: MultiVectors) -> tuple[int, int]:
        """Return the number of documents with tokens, and of tokens, after an addition."""
        rows, tokens = self.searchable
        gone = self.lengths.values[replaced]
        count = len(rows) + int((documents.lengths > 0).sum()) - int((gone > 0).sum())
        return count, tokens + documents.num_tokens - int(gone.sum())

    def _needs_vectors(self, documents: int, tokens: int) -> bool:
        """Return True if the collection is large enough to need vectors, and to fit the encoder on."""
        if tokens <= self.settings.exact_tokens:
            return False
        if self._encoder is not None or not self.config.needs_fit_sample:
            return True
        return documents >= (MAX_FIT_DOCUMENTS if self._building else MIN_FIT_DOCUMENTS)

    def _build_candidates(self, rows: NDArray[np.int64], threads: int | None) -> CandidateSearch:
        """Encode these rows, after fitting the encoder on them if it is not fitted yet."""
        encoder = make_encoder(self.config) if self._encoder is None else self._encoder
        fits = encoder.needs_fit
        if fits:
            encoder.fit((texts for _, texts in self.store.batches(rows)), threads=threads)
        candidates = CandidateSearch(encoder, self.settings)
        for batch, texts in self.store.batches(rows):
            candidates.add(batch, texts, threads)
        if fits:
            candidates.fitted_on = len(candidates.search)
        candidates.profile = self._profile(rows)
        return candidates

    def _profile(self, rows: NDArray[np.int64]) -> SampleProfile | None:
        """Return the profile of a sample of these rows, if the encoder fits maps to documents."""
        if not self.config.needs_fit_sample:
            return None
        if len(rows) > SAMPLE_SIZE:
            rows = np.sort(np.random.default_rng(0).choice(rows, SAMPLE_SIZE, replace=False))
        texts = self.store.rows(rows)
        filled = np.flatnonzero(texts.lengths > 0)
        return SampleProfile.of(texts[filled]) if len(filled) else None

    def settle(self) -> None:
        """Prepare a graph for searches after changes; earlier contents may not be searched any more."""
        if self.candidates is not None:
            self.candidates.search.settle()

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Delete documents."""
        self.ids.drop(rows)
        self._searchable = None
        if self.candidates is not None:
            self.candidates.remove(rows)

    def rebuilt(self, threads: int | None, staging: Path | None = None) -> IndexContents:
        """Return new contents of the same documents without the rows of deleted ones, see :meth:`building`."""
        current, encoder = self.candidates, self.encoder
        drifted = current is not None and current.has_drifted
        if current is not None and current.fitted_on_too_few:
            encoder = None
        if drifted:  # fit on a sample of all documents, not on the first ones
            batches = (texts for _, texts in self.store.batches(self.ids.live))
            encoder = make_encoder(self.config).fit(batches, threads=threads)
        fresh = IndexContents(
            self.config, self.settings, encoder=encoder, first_id=self.ids.next, codec=self.store.codec
        )
        fresh.generations, fresh.attachments = self.generations, self.attachments
        fresh.last_change = self.last_change
        with fresh.building(threads, staging):
            for rows, texts, codes in self.store.coded_batches(self.ids.live):
                fresh.append(self.ids.of(rows), texts, threads, codes)
        if drifted and fresh.candidates is not None:
            fresh.candidates.fitted_on = len(fresh.candidates.search)
            fresh.candidates.profile = fresh._profile(fresh.ids.live)
        return fresh

    # -- measuring ------------------------------------------------------------

    def measure(self, threads: int | None) -> None:
        """Measure the recall of both stages if it is unknown or the index has doubled since.

        Queries are windows of documents, because no real queries are available here.
        """
        rows, tokens = self.searchable
        if self.candidates is None or not self.candidates.recall_is_stale or len(rows) == 0:
            return
        queries, sources = document_windows(self, _MAX_QUERIES)
        self.candidates.measure(queries, threads)
        count = min(len(queries), num_measured_queries(tokens, self.config.dimension))
        some = np.sort(np.random.default_rng(0).permutation(len(queries))[:count])
        self.candidates.first_stage = (
            self.measure_first_stage(queries[some], sources[some], threads=threads)
            if count and len(rows) > DEFAULT_CANDIDATES + 1
            else None
        )

    def measure_first_stage(
        self,
        queries: MultiVectors,
        sources: NDArray[np.int64] | None = None,
        *,
        k: int = _BEST,
        candidates: int = DEFAULT_CANDIDATES,
        threads: int | None = None,
    ) -> FirstStageRecall | None:
        """Return the share of the exact best documents among the candidates; None if all tokens are read.

        `sources`, int64 (n_queries,), are the rows of the documents from which the queries were cut; they are
        excluded.
        """
        rows, _ = self.searchable
        if self.candidates is None or len(rows) == 0:
            return None
        exact = exact_best(self, queries, sources, k, threads)
        proposals = self.candidates.find(queries, candidates + int(sources is not None), threads=threads)
        if sources is not None:
            proposals = [found[found != source] for found, source in zip(proposals, sources, strict=True)]
        shares = [
            np.isin(best, proposed[:candidates]).mean()
            for best, proposed in zip(exact, proposals, strict=True)
        ]
        return FirstStageRecall(
            recall=float(np.mean(shares)),
            k=k,
            candidates=candidates,
            queries=len(queries),
            pseudo_queries=sources is not None,
            documents=len(rows),
        )

    @property
    def has_drifted(self) -> bool:
        """True if added documents differ from those that the encoder was fitted on."""
        return self.candidates is not None and self.candidates.has_drifted

    @property
    def kind(self) -> str:
        """What a search reads: "all tokens", or the kind of vector search."""
        return "all tokens" if self.candidates is None else self.candidates.search.kind

    def info(self) -> IndexInfo:
        """Return sizes, settings, measured recall and warnings."""
        live, deleted = len(self.ids), len(self.store) - len(self.ids)
        filled, tokens = self.searchable
        store, candidates = self.store.info(), self.candidates
        vectors = None if candidates is None else candidates.info()
        warnings = [] if candidates is None else candidates.warnings()
        if candidates is None and tokens > self.settings.exact_tokens and len(filled):
            warnings.append(
                f"{len(filled)} documents are too few to fit the encoder, so searches read all tokens. Add documents "
                f"until there are {MIN_FIT_DOCUMENTS}, or give an encoder that was fitted on others."
            )
        if deleted > max(100, live // 2):
            warnings.append(f"{deleted} deleted documents still take memory: call rebuild().")
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
            first_stage=None if candidates is None else candidates.first_stage,
            drift=None if candidates is None or candidates.profile is None else candidates.profile.distance,
            bytes_per_document=round(per_document + (vectors["bytes_per_vector"] if vectors else 0)),
            warnings=tuple(warnings),
        )


def num_measured_queries(tokens: int, dimension: int) -> int:
    """Return the number of pseudo-queries to measure in an index of this size; 0 if it is too large."""
    if tokens > _MAX_TOKENS:
        return 0
    affordable = _PRODUCTS // max(1, 32 * tokens * dimension)
    return min(_MAX_QUERIES, max(_MIN_QUERIES, affordable))
