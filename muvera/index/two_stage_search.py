"""TwoStageSearch: the place where candidates by vectors meet exact ranking by tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.ranking import Ranking
from ..encoders.base import Encoder, EncoderConfig
from ..reranking.codecs.base import CodedVectors, TokenCodec
from ..reranking.pruning import RerankOptions
from ..utils.group_lock import GroupLock
from ..utils.growable_array import GrowingArray
from ..utils.parallel import run_in_ranges, split_by_weight
from .candidates import CandidateSearch
from .id_map import IdMap, Missing
from .quality import FirstStageRecall, K, first_stage_recall
from .search_plan import DEFAULT_CANDIDATES, SearchPlan
from .settings import IndexSettings
from .token_levels import TokenLevels

__all__ = ["MIN_FIT_DOCUMENTS", "TwoStageSearch"]

#: Minimum number of documents before maps are learned: from fewer they find little of others, so that
#: all tokens are read until then.
MIN_FIT_DOCUMENTS = 256

# Queries whose candidates are read from the disk while those before them are ranked.
_AHEAD = 4


class TwoStageSearch:
    """Ids, tokens and vectors of documents, each under a row number that is never used twice.

    Vectors propose candidates, tokens order them; few documents are ordered without vectors.

    Parameters
    ----------
    config : EncoderConfig
        How vectors are made.
    settings : IndexSettings
        How they are searched.
    encoder : Encoder, optional
        A fitted encoder to use instead of learning from the documents.
    first_id : int
        The first id to give to documents without one.
    codec : TokenCodec, optional
        A fitted codec of tokens to use instead of learning one.
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
        self.min_fit_documents = MIN_FIT_DOCUMENTS
        self.lock = GroupLock()
        self._searchable: tuple[NDArray[np.int64], int] | None = None

    @property
    def encoder(self) -> Encoder | None:
        """The encoder in use, or the one given for when the collection has grown."""
        return self._encoder if self.candidates is None else self.candidates.encoder

    @property
    def searchable(self) -> tuple[NDArray[np.int64], int]:
        """Rows that are there and have tokens, ascending, and the number of their tokens.

        Kept until the next change, for it takes time in proportion to the collection.
        """
        if self._searchable is None:
            live = self.ids.live
            lengths = self.lengths.values[live]
            self._searchable = live[lengths > 0], int(lengths.sum())
        return self._searchable

    def rows_of(self, ids: list[object], missing: Missing = "raise") -> list[int]:
        """Return the rows of `ids` in their order, see :meth:`IdMap.rows`."""
        with self.lock.shared():
            return self.ids.rows(ids, missing)

    def texts(self, rows: list[int]) -> MultiVectors:
        """Return the documents at `rows`, each once, in this order, with their ids."""
        wanted = np.array(rows, np.int64)
        ids = self.ids.of(wanted)
        if len(rows) == 0:
            return MultiVectors.from_arrays([], dimension=self.config.dimension).with_ids(ids)
        ascending = np.sort(wanted)
        return self.store.rows(ascending)[np.searchsorted(ascending, wanted)].with_ids(ids)

    def coded(self, rows: list[int]) -> CodedVectors:
        """Return the codes of the documents at `rows`, each once, in this order."""
        if self.store.codes is None:
            raise ValueError(
                "This index keeps no codes of tokens. Build it with tokens='2bit' or another codec."
            )
        if not rows:
            codec = self.store.codes.codec
            return CodedVectors(codec, np.empty((0, codec.bytes_per_token), np.uint8), [0])
        wanted = np.array(rows, np.int64)
        ascending = np.sort(wanted)
        return self.store.codes.rows(ascending)[np.searchsorted(ascending, wanted)]

    def search(self, queries: MultiVectors, plan: SearchPlan) -> list[Ranking]:
        """Return the best documents for each query, by ids and exact scores."""
        with self.lock.shared(plan.ef):
            self.store.require_rescore(plan.rescore)
            rows, tokens = self.searchable
            k, visible, allowed = min(plan.k, len(rows)), len(rows), None
            if plan.ids is not None:
                rows = allowed = self._with_tokens(plan.ids)
                tokens = int(self.lengths.values[rows].sum())
            few = len(rows) <= plan.num_candidates or tokens <= self.settings.exact_tokens
            found = None
            if self.candidates is not None and not few:
                found = self.candidates.find(
                    queries,
                    plan.num_candidates,
                    allowed,
                    plan.threads,
                    ef=plan.ef,
                    hidden=len(self.candidates.search) - visible,
                    below=self.ids.num_rows,
                )
        # Rows keep their tokens and ids for ever, so that no change matters from here on.
        if found is None:
            how = RerankOptions(k)
            return self.rank(queries, [rows] * len(queries), how, plan.threads, rescore=plan.rescore)
        how = RerankOptions(k, patience=plan.patience)
        return self.rank(queries, found, how, plan.threads, plan.rescore)

    def _with_tokens(self, ids: list[Any]) -> NDArray[np.int64]:
        """Return the rows of these ids that have tokens, ascending."""
        rows = self.ids.existing_rows(ids)
        filled: NDArray[np.int64] = rows[self.lengths.values[rows] > 0]
        return filled

    def rank(
        self,
        queries: MultiVectors,
        rows: Sequence[NDArray[np.int64]],
        how: RerankOptions,
        threads: int | None,
        rescore: int | None = None,
    ) -> list[Ranking]:
        """Order each query's rows, the likely best first; a query without tokens finds nothing."""
        exact = self.store.exact
        none = Ranking(self.ids.of(np.empty(0, np.int64)), np.empty(0, np.float32), exact)
        rankings = [none] * len(queries)
        alone = len(queries) == 1

        def work(start: int, stop: int) -> None:
            for q in range(start, stop):
                if q + _AHEAD < len(queries):
                    self.store.read_ahead(rows[q + _AHEAD])
                if len(rows[q]) == 0 or len(queries[q]) == 0:
                    continue
                found, scores = self.store.rank(
                    queries[q],
                    rows[q],
                    how,
                    threads if alone else 1,
                    rescore=rescore,
                )
                rankings[q] = Ranking(self.ids.of(found), scores, exact)

        for first in rows[:_AHEAD]:
            self.store.read_ahead(first)
        run_in_ranges(work, split_by_weight(queries.offsets, 1, 1), threads)
        return rankings

    def measure_first_stage(
        self,
        queries: MultiVectors,
        sources: NDArray[np.int64] | None = None,
        *,
        k: int = K,
        candidates: int = DEFAULT_CANDIDATES,
        threads: int | None = None,
    ) -> FirstStageRecall | None:
        """Return the share of the exact best among the candidates; None where all tokens are read.

        Parameters
        ----------
        queries : MultiVectors
            Each with a token.
        sources : int64 (n_queries,), optional
            Rows of the documents that the queries were cut out of.
        k, candidates : int
        threads : int, optional
        """
        rows, _ = self.searchable
        if self.candidates is None or len(rows) == 0:
            return None
        more = int(sources is not None)
        exact = self.rank(queries, [rows] * len(queries), RerankOptions(min(k + more, len(rows))), threads)
        best = [np.array(self.ids.rows(ranking.ids.tolist()), np.int64) for ranking in exact]
        found = self.candidates.find(queries, candidates + more, threads=threads)
        return FirstStageRecall(
            recall=first_stage_recall(best, found, sources, k, candidates),
            k=k,
            candidates=candidates,
            queries=len(queries),
            pseudo_queries=sources is not None,
            documents=len(rows),
        )
