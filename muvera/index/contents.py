"""IndexContents: what an index holds, by row number, and changes that happen wholly or not at all."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable
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
from ..reranking.pruning import RerankOptions, rank_candidates
from ..utils.growable_array import GrowingArray
from ..utils.parallel import run_in_ranges, split_by_weight
from .candidates import PROBES, Backend, CandidateSearch
from .id_map import IdMap
from .token_store import TokenStore

__all__ = ["MIN_FIT_DOCUMENTS", "Filter", "IndexContents", "as_list"]

#: Maps learned from fewer documents find little of others: until there are so many, all tokens are read.
MIN_FIT_DOCUMENTS = 256

Filter = abc.Collection[Any] | Callable[[Any], bool]


class IndexContents:
    """Ids, tokens and FDEs of documents, each under a row number that is never used twice.

    Parameters
    ----------
    config, backend, hnsw, exact_tokens, encoder, pq
        As for :class:`muvera.MuveraIndex`.
    staging : Path, optional
        Where tokens go once there are many, see :class:`muvera.index.token_store.TokenStore`.
    first_id : int
        The first id to give to documents without one.
    """

    def __init__(
        self,
        config: EncoderConfig,
        *,
        backend: Backend,
        hnsw: dict[str, Any],
        exact_tokens: int,
        encoder: Encoder | None = None,
        staging: Path | None = None,
        first_id: int = 0,
        pq: dict[str, Any] | None = None,
    ) -> None:
        self.pq = dict(pq or {})
        self.config, self.backend, self.hnsw, self.exact_tokens = config, backend, hnsw, exact_tokens
        self._encoder = encoder
        self.names = IdMap(first_id)
        self.store = TokenStore(staging)
        self.lengths = GrowingArray(np.empty(0, np.int64))
        self.candidates: CandidateSearch | None = None
        self._searchable: tuple[NDArray[np.int64], int] | None = None
        #: So many documents are to be there before anything is learned from them.
        self.min_fit_documents = MIN_FIT_DOCUMENTS

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
            live = self.names.live
            lengths = self.lengths.values[live]
            self._searchable = live[lengths > 0], int(lengths.sum())
        return self._searchable

    # -- changing -------------------------------------------------------------

    def append(self, ids: Ids, documents: MultiVectors, threads: int | None) -> None:
        """Add documents under these ids, in place of those that have them."""
        if len(documents) == 0:
            return
        self._require_fitting()
        replaced = self.names.existing_rows(ids)
        rows = np.arange(len(self.store), len(self.store) + len(documents))
        before, candidates = self.store.segments, self.candidates
        try:
            self.store.append(documents)
            if candidates is not None:
                candidates.add(rows, documents, threads)
            elif self._needs_vectors(*self._sizes_after(replaced, documents)):
                live = np.setdiff1d(self.names.live, replaced, assume_unique=True)
                candidates = self._build_candidates(np.concatenate([live, rows]), threads)
        except BaseException:
            self.store.segments = before
            self._retire_rows(rows)
            raise
        self.candidates = candidates
        self.lengths.extend(documents.lengths)
        self.names.append(ids)
        self._searchable = None
        self.remove(replaced)

    def _require_fitting(self) -> None:
        """Raise before vectors of two kinds stand side by side."""
        encoder = self.encoder
        if encoder is not None and encoder.config != self.config:
            raise ValueError(
                f"The index's encoder was fitted for configuration {encoder.config.hash}, but the index has "
                f"{self.config.hash}: their vectors do not compare. Build a new index."
            )

    def _sizes_after(self, replaced: NDArray[np.int64], documents: MultiVectors) -> tuple[int, int]:
        """Return how many documents with tokens, and how many tokens, there will be."""
        rows, tokens = self.searchable
        gone = self.lengths.values[replaced]
        count = len(rows) + int((documents.lengths > 0).sum()) - int((gone > 0).sum())
        return count, tokens + documents.num_tokens - int(gone.sum())

    def _needs_vectors(self, documents: int, tokens: int) -> bool:
        """Whether so much is to be searched through vectors."""
        if tokens <= self.exact_tokens:
            return False
        fitted = self._encoder is not None and not self._encoder.needs_fit
        return fitted or not self.config.needs_fit_sample or documents >= self.min_fit_documents

    def encode_if_large_enough(self, threads: int | None) -> None:
        """Encode what is there where that is due, as after `min_fit_documents` was lowered."""
        rows, tokens = self.searchable
        if self.candidates is None and self._needs_vectors(len(rows), tokens):
            self.candidates = self._build_candidates(self.names.live, threads)

    def warnings(self) -> list[str]:
        """Return what a user should know of the search, in sentences."""
        rows, tokens = self.searchable
        if self.candidates is not None:
            return self.candidates.warnings()
        if tokens <= self.exact_tokens or not len(rows):
            return []
        return [
            f"{len(rows)} documents are too few to learn maps from, so all tokens are read; with "
            f"{self.min_fit_documents} they will be learned. An encoder that is fitted on others is used at once."
        ]

    def _retire_rows(self, rows: NDArray[np.int64]) -> None:
        """Never use these rows where a part of them is spent, for a graph takes a label once."""
        if self.candidates is not None and not self.candidates.can_add(rows):
            none = np.zeros(len(rows), np.int64)
            empty = np.empty((0, self.config.dimension), self.store.segments[-1].vectors.tokens.dtype)
            self.store.append(MultiVectors.from_flat(empty, none))
            self.lengths.extend(none)
            self.names.reserve(len(rows))

    def _build_candidates(self, rows: NDArray[np.int64], threads: int | None) -> CandidateSearch:
        """Return FDEs of these rows, having learned what is to be learned."""
        encoder = make_encoder(self.config) if self._encoder is None else self._encoder
        learns = encoder.needs_fit
        if learns:
            encoder.fit((texts for _, texts in self.store.batches(rows)), threads=threads)
        candidates = CandidateSearch(encoder, self.backend, self.hnsw, self.pq)
        for part, texts in self.store.batches(rows):
            candidates.add(part, texts, threads)
        if learns:
            candidates.fitted_on = len(candidates.search)  # those with tokens
        return candidates

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Delete documents."""
        self.names.drop(rows)
        self._searchable = None
        if self.candidates is not None:
            self.candidates.remove(rows)

    def measure(self, threads: int | None) -> None:
        """Measure the graph's recall where it is unknown or the graph has doubled since."""
        if self.candidates is None or not self.candidates.recall_is_stale:
            return
        rows, _ = self.searchable
        picked = np.random.default_rng(0).choice(rows, min(PROBES, len(rows)), replace=False)
        if len(picked):
            self.candidates.measure(self.store.rows(np.sort(picked)), threads)

    def compacted(self, threads: int | None) -> IndexContents:
        """Return a new collection of the same documents, without the deleted ones' rows."""
        fresh = IndexContents(
            self.config,
            backend=self.backend,
            hnsw=self.hnsw,
            pq=self.pq,
            exact_tokens=self.exact_tokens,
            # Maps that were learned from few of the documents are learned again.
            encoder=None
            if self.candidates is not None and self.candidates.fitted_on_too_few
            else self.encoder,
            first_id=self.names.next,
        )
        least, fresh.min_fit_documents = fresh.min_fit_documents, MAX_FIT_DOCUMENTS
        for rows, texts in self.store.batches(self.names.live):
            fresh.append(self.names.of(rows), texts, threads)
        fresh.min_fit_documents = least
        fresh.encode_if_large_enough(threads)
        fresh.measure(threads)
        return fresh

    @property
    def kind(self) -> str:
        """What a search reads: "all tokens", or the kind of the vectors' search."""
        return "all tokens" if self.candidates is None else self.candidates.search.kind

    def facts(self) -> dict[str, Any]:
        """Return sizes, settings, the measured recall of the graph, and warnings in words."""
        live = len(self.names)
        filled, tokens = self.searchable
        deleted = len(self.store) - live
        itemsize = self.store.segments[0].vectors.tokens.itemsize if self.store.segments else 4
        search = None if self.candidates is None else self.candidates.info()
        token_bytes = tokens * self.config.dimension * itemsize
        per_document = token_bytes / max(1, live) + (search["bytes_per_vector"] if search else 0)
        warnings = self.warnings()
        if deleted > max(100, live // 2):
            warnings.append(f"{deleted} deleted documents still take memory: call compact().")
        return {
            "documents": live,
            "empty_documents": live - len(filled),
            "deleted_documents": deleted,
            "tokens": tokens,
            "dimension": self.config.dimension,
            "search": self.kind,
            "exact_tokens": self.exact_tokens,
            "fde": {**self.config.to_dict(), "vector_dimension": self.config.vector_dimension},
            "vectors": search,
            "bytes_per_document": round(per_document),
            "warnings": warnings,
        }

    # -- searching ------------------------------------------------------------

    def filtered(self, wanted: Filter) -> NDArray[np.int64]:
        """Return the rows with tokens that a filter allows, ascending."""
        if callable(wanted):
            rows, _ = self.searchable
            keep = np.array([bool(wanted(name)) for name in self.names.of(rows).tolist()], bool)
        else:
            rows = self.names.existing_rows(as_list(wanted, "filter"))
            keep = self.lengths.values[rows] > 0
        filtered: NDArray[np.int64] = rows[keep]
        return filtered

    def rank(
        self,
        queries: MultiVectors,
        rows: list[NDArray[np.int64]],
        k: int,
        mean: bool,
        threads: int | None,
        *,
        ball_carving_tau: float | None = None,
        patience: int | None = None,
    ) -> list[Ranking]:
        """Order rows (the likely best first) exactly: a list for each query, or one for all."""
        none = Ranking(self.names.of(np.empty(0, np.int64)), np.empty(0, np.float32))
        rankings = [none] * len(queries)
        alone = len(queries) == 1

        def work(start: int, stop: int) -> None:
            for q in range(start, stop):
                picked = rows[0] if len(rows) == 1 else rows[q]
                if len(picked) == 0:
                    continue
                found, scores = rank_candidates(
                    queries[q],
                    ball_carving_tau,
                    picked,
                    lambda at: self.store.pieces(at, ordered=patience is not None),
                    RerankOptions(k, patience=patience, mean=mean),
                    threads if alone else 1,
                )
                rankings[q] = Ranking(self.names.of(found), scores)

        run_in_ranges(work, split_by_weight(queries.offsets, 1, 1), threads)
        return rankings


def as_list(values: Any, name: str) -> list[Any]:
    """Return a collection of ids as a list, or raise TypeError for anything else."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise TypeError(
            f"{name} must be a collection of ids, got the single {type(values).__name__} {values!r}."
        )
    return values.tolist() if isinstance(values, np.ndarray) else list(values)
