"""IndexContents: what an index holds, by row number, while it is filled and changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.sampling import MAX_FIT_DOCUMENTS, pseudo_queries
from ..data.validation import Ids
from ..encoders.registry import make_encoder
from ..reranking.codecs.base import CodedVectors
from .candidates import CandidateSearch
from .info import IndexInfo
from .quality import (
    MAX_QUERIES,
    WINDOW,
    num_measured_queries,
)
from .sample_profile import SAMPLE_SIZE, SampleProfile
from .search_plan import DEFAULT_CANDIDATES
from .two_stage_search import TwoStageSearch

__all__ = ["IndexContents"]


class IndexContents(TwoStageSearch):
    """Ids, tokens and vectors of documents, filled, changed and measured.

    A change happens wholly or not at all.  One thread at a time may change; others may search meanwhile:
    `lock` is held together by searches, and alone for the moments in which a change becomes visible.

    Parameters are those of :class:`muvera.index.two_stage_search.TwoStageSearch`.
    """

    # -- changing -------------------------------------------------------------

    @contextmanager
    def filling(self, threads: int | None, staging: Path | None = None) -> Iterator[None]:
        """Fill new contents: what is to be learned is learned from as many documents as there are.

        Parameters
        ----------
        threads : int, optional
        staging : Path, optional
            Where tokens go once there are many, see :class:`muvera.index.token_store.TokenStore`.
        """
        self.store.staging = staging
        least, self.min_fit_documents = self.min_fit_documents, MAX_FIT_DOCUMENTS
        try:
            yield
        finally:
            self.min_fit_documents = least
        rows, tokens = self.searchable
        if self.candidates is None and self._needs_vectors(len(rows), tokens):
            self.candidates = self._build_candidates(self.ids.live, threads)
        self.measure(threads)
        self.store.fit_if_ready(threads, tokens=1)
        self.store.flush()

    def append(
        self, ids: Ids, documents: MultiVectors, threads: int | None, codes: CodedVectors | None = None
    ) -> None:
        """Add documents under these ids, in place of those that have them; `codes`: theirs, if known."""
        if len(documents) == 0:
            return
        self._require_fitting()
        replaced = self.ids.existing_rows(ids)
        rows = np.arange(len(self.store), len(self.store) + len(documents))
        before, candidates = self.store.state, self.candidates
        try:
            self.store.append(documents, threads, codes)
            if candidates is not None:
                candidates.add(rows, documents, threads, self.lock.exclusive)
            elif self._needs_vectors(*self._sizes_after(replaced, documents)):
                live = np.setdiff1d(self.ids.live, replaced, assume_unique=True)
                candidates = self._build_candidates(np.concatenate([live, rows]), threads)
            if candidates is not None or self.min_fit_documents != MAX_FIT_DOCUMENTS:
                self.store.fit_if_ready(
                    threads
                )  # while filling, not before vectors were made of exact tokens
        except BaseException:
            with self.lock.exclusive():
                self.store.state = before
                self._retire_rows(rows)
            raise
        with self.lock.exclusive():
            self.candidates = candidates
            self.lengths.extend(documents.lengths)
            self.ids.append(ids)
            self._remove(replaced)

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
        if tokens <= self.settings.exact_tokens:
            return False
        fitted = self._encoder is not None and not self._encoder.needs_fit
        return fitted or not self.config.needs_fit_sample or documents >= self.min_fit_documents

    def _retire_rows(self, rows: NDArray[np.int64]) -> None:
        """Never use these rows where a part of them is spent, for a graph takes a label once."""
        if self.candidates is not None and not self.candidates.can_add(rows):
            none = np.zeros(len(rows), np.int64)
            self.store.append_empty(len(rows))
            self.lengths.extend(none)
            self.ids.reserve(len(rows))

    def _build_candidates(self, rows: NDArray[np.int64], threads: int | None) -> CandidateSearch:
        """Return vectors of these rows, having learned what is to be learned."""
        encoder = make_encoder(self.config) if self._encoder is None else self._encoder
        learns = encoder.needs_fit
        if learns:
            encoder.fit((texts for _, texts in self.store.batches(rows)), threads=threads)
        candidates = CandidateSearch(encoder, self.settings)
        for part, texts in self.store.batches(rows):
            candidates.add(part, texts, threads)
        if learns:
            candidates.fitted_on = len(candidates.search)  # those with tokens
        candidates.profile = self._profile(rows)
        return candidates

    def _profile(self, rows: NDArray[np.int64]) -> SampleProfile | None:
        """Return how these documents are distributed, where maps are learned from documents."""
        if not self.config.needs_fit_sample:
            return None
        if len(rows) > SAMPLE_SIZE:
            rows = np.sort(np.random.default_rng(0).choice(rows, SAMPLE_SIZE, replace=False))
        texts = self.store.rows(rows)
        filled = np.flatnonzero(texts.lengths > 0)
        return SampleProfile.of(texts[filled]) if len(filled) else None

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Delete documents."""
        with self.lock.exclusive():
            self._remove(rows)

    def _remove(self, rows: NDArray[np.int64]) -> None:
        self.ids.drop(rows)
        self._searchable = None
        if self.candidates is not None:
            self.candidates.remove(rows)

    def measure(self, threads: int | None) -> None:
        """Measure the recall of both stages where it is unknown or the index has doubled since.

        Queries are windows of the documents' tokens, because real ones are not known here.
        """
        rows, tokens = self.searchable
        if self.candidates is None or not self.candidates.recall_is_stale or len(rows) == 0:
            return
        stream = np.random.default_rng(0)
        picked = np.sort(stream.choice(rows, min(MAX_QUERIES, len(rows)), replace=False))
        with self.lock.shared():
            documents = self.store.rows(picked)
            queries, sources = pseudo_queries(documents, len(documents), WINDOW, stream)
            self.candidates.measure(queries, threads)
            count = min(len(queries), num_measured_queries(tokens, self.config.dimension))
            some = np.sort(stream.permutation(len(queries))[:count])
            self.candidates.first_stage = (
                self.measure_first_stage(queries[some], picked[sources[some]], threads=threads)
                if count and len(rows) > DEFAULT_CANDIDATES + 1
                else None
            )

    def rebuilt(self, threads: int | None, staging: Path | None = None) -> IndexContents:
        """Return new contents of the same documents, without the deleted ones' rows; see :meth:`filling`."""
        # Maps that were learned from few of the documents, or from unlike ones, are learned again.
        current = self.candidates
        drifted = current is not None and current.has_drifted
        again = current is not None and current.fitted_on_too_few
        encoder = None if again else self.encoder
        if drifted:  # from a sample of all, not from the first ones that come
            batches = (texts for _, texts in self.store.batches(self.ids.live))
            encoder = make_encoder(self.config).fit(batches, threads=threads)
        fresh = IndexContents(
            self.config,
            self.settings,
            encoder=encoder,
            first_id=self.ids.next,
            codec=self.store.codec,
        )
        with fresh.filling(threads, staging):
            for rows, texts, codes in self.store.coded_batches(self.ids.live):
                fresh.append(self.ids.of(rows), texts, threads, codes)
        if drifted and fresh.candidates is not None:
            fresh.candidates.fitted_on = len(fresh.candidates.search)
            fresh.candidates.profile = fresh._profile(fresh.ids.live)
        return fresh

    # -- looking --------------------------------------------------------------

    @property
    def has_drifted(self) -> bool:
        """Whether the documents that were added are unlike those that the encoder learned from."""
        return self.candidates is not None and self.candidates.has_drifted

    @property
    def kind(self) -> str:
        """What a search reads: "all tokens", or the kind of the vectors' search."""
        return "all tokens" if self.candidates is None else self.candidates.search.kind

    def info(self) -> IndexInfo:
        """Return sizes, settings, the measured recall of the graph, and warnings in words."""
        with self.lock.shared():
            live, deleted = len(self.ids), len(self.store) - len(self.ids)
            filled, tokens = self.searchable
            kept = self.store.info()
            search = None if self.candidates is None else self.candidates.info()
            warnings = self._warnings()
        per_document = tokens * kept["bytes_per_token"] / max(1, live) + (
            search["bytes_per_vector"] if search else 0
        )
        if deleted > max(100, live // 2):
            warnings.append(f"{deleted} deleted documents still take memory: call rebuild().")
        return IndexInfo(
            documents=live,
            empty_documents=live - len(filled),
            deleted_documents=deleted,
            tokens=tokens,
            dimension=self.config.dimension,
            search=self.kind,
            exact_tokens=self.settings.exact_tokens,
            encoder={**self.config.to_dict(), "vector_dimension": self.config.vector_dimension},
            vectors=search,
            token_codec=kept,
            first_stage=None if self.candidates is None else self.candidates.first_stage,
            drift=None
            if self.candidates is None or (profile := self.candidates.profile) is None
            else profile.distance,
            bytes_per_document=round(per_document),
            warnings=tuple(warnings),
        )

    def _warnings(self) -> list[str]:
        rows, tokens = self.searchable
        if self.candidates is not None:
            return self.candidates.warnings()
        if tokens <= self.settings.exact_tokens or not len(rows):
            return []
        return [
            f"{len(rows)} documents are too few to learn maps from, so all tokens are read; with "
            f"{self.min_fit_documents} they will be learned. An encoder that is fitted on others is used at once."
        ]
