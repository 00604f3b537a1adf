"""Recall of encoders in every storage; the vectors of one encoder are in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..encoders.base import Encoder, EncoderConfig
from ..encoders.registry import make_encoder
from ..mips import VectorSearch
from .sample import K, QuerySet, TuningSample
from .search_space import EncoderCandidate, Storage

__all__ = ["CUTOFFS", "Evaluator", "Measurement", "mean_recall", "ranks_of_best"]

#: Numbers of candidate documents at which recall is measured.
CUTOFFS = (10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Measurement:
    """Ranks of the exact best documents by one encoder's vectors in one storage, and times.

    Parameters
    ----------
    selection, held_out : int64 (n_queries, K)
        Ranks that :func:`ranks_of_best` returns, for the two sets of queries.
    pseudo_queries : int64 (n_queries, K) or None
        The same for pseudo-queries, where they were drawn besides real queries.
    encode_seconds : float
        Per document.
    query_seconds : float
        Per query: encoding it and searching the sample.
    """

    selection: NDArray[np.int64]
    held_out: NDArray[np.int64]
    pseudo_queries: NDArray[np.int64] | None
    encode_seconds: float
    query_seconds: float


class Evaluator:
    """Measures encoders on a sample; keeps fitted encoders, but not their vectors.

    Parameters
    ----------
    sample : TuningSample
    max_rank : int
        Number of candidate documents up to which ranks are measured.
    threads : int, optional
        Changes times, but not ranks.
    advance : callable
        Called with 1 after each step of the work.
    """

    def __init__(
        self, sample: TuningSample, max_rank: int, threads: int | None, advance: Callable[[int], object]
    ) -> None:
        self.sample, self.max_rank, self.threads, self._advance = sample, max_rank, threads, advance
        self._encoders: dict[EncoderConfig, Encoder] = {}

    def encoder(self, config: EncoderConfig) -> Encoder:
        """Return the encoder of `config`, fitted on the sample's documents for fitting alone."""
        if config not in self._encoders:
            documents = self.sample.documents[self.sample.fitting]
            self._encoders[config] = make_encoder(config).fit(documents, threads=self.threads)
        return self._encoders[config]

    def keep(self, configs: Iterable[EncoderConfig]) -> None:
        """Drop the fitted encoders of all other configurations."""
        kept = set(configs)
        self._encoders = {config: one for config, one in self._encoders.items() if config in kept}

    def recall(
        self, encoders: Sequence[EncoderCandidate], storage: Storage, count: int, candidates: int
    ) -> list[float]:
        """Return the encoders' mean recall with the queries for selection.

        Parameters
        ----------
        encoders : sequence of EncoderCandidate
        storage : Storage
        count : int
            Measure on the first so many documents of the sample.
        candidates : int
            Documents that a search would rank exactly.
        """
        queries = self.sample.selection
        best = queries.best(count)
        found: dict[EncoderCandidate, float] = {}
        for source in dict.fromkeys(each.source for each in encoders):
            encoder = self.encoder(source)
            documents = encoder.encode_documents(self.sample.documents[:count], threads=self.threads)
            vectors = encoder.encode_queries(queries.queries, threads=self.threads)
            for each in (each for each in encoders if each.source == source):
                search = self._filled_search(each, storage, documents)
                ranks = ranks_of_best(
                    search, vectors[:, : each.floats], queries, best, min(candidates, count), self.threads
                )
                found[each] = mean_recall(ranks, candidates)
            self._advance(1)
        return [found[each] for each in encoders]

    def measure(
        self, source: EncoderConfig, pairs: Sequence[tuple[EncoderCandidate, Storage]]
    ) -> list[Measurement]:
        """Return measurements of one source's encoders in storages, on the whole sample.

        Each kind of work is done once before it is timed.
        """
        sample, encoder = self.sample, self.encoder(source)
        self._warm_up(encoder)
        begun = time.perf_counter()
        documents = encoder.encode_documents(sample.documents, threads=self.threads)
        encode_seconds = (time.perf_counter() - begun) / len(documents)
        sets = [
            each for each in (sample.selection, sample.held_out, sample.pseudo_queries) if each is not None
        ]
        begun = time.perf_counter()
        vectors = [encoder.encode_queries(each.queries, threads=self.threads) for each in sets]
        count = sum(map(len, vectors))
        encode_query_seconds = (time.perf_counter() - begun) / count
        best = [each.best(len(documents)) for each in sets]
        found = []
        for each, storage in pairs:
            search = self._filled_search(each, storage, documents)
            search.search(np.ascontiguousarray(vectors[0][:1, : each.floats]), 1, threads=self.threads)
            begun = time.perf_counter()
            ranks = [
                ranks_of_best(search, rows[:, : each.floats], queries, top, self.max_rank, self.threads)
                for rows, queries, top in zip(vectors, sets, best, strict=True)
            ]
            search_seconds = (time.perf_counter() - begun) / count
            pseudo = ranks[2] if len(ranks) > 2 else None
            found.append(
                Measurement(ranks[0], ranks[1], pseudo, encode_seconds, encode_query_seconds + search_seconds)
            )
        self._advance(1)
        return found

    def _warm_up(self, encoder: Encoder) -> None:
        """Encode one text of each side: times that follow are without compilation."""
        encoder.encode_documents(self.sample.documents[:1], threads=self.threads)
        encoder.encode_queries(self.sample.selection.queries[:1], threads=self.threads)

    def _filled_search(
        self, encoder: EncoderCandidate, storage: Storage, documents: NDArray[np.float32]
    ) -> VectorSearch:
        """Return a search over the documents' vectors; codes learn from the documents for fitting."""
        search = storage.make_search(encoder.floats)
        fitting = self.sample.fitting[self.sample.fitting < len(documents)]
        vectors = np.ascontiguousarray(documents[:, : encoder.floats])
        search.add(fitting, vectors[fitting], self.threads)
        others = np.setdiff1d(np.arange(len(documents)), fitting)
        if len(others):
            search.add(others, vectors[others], self.threads)
        return search


def mean_recall(ranks: NDArray[np.int64], candidates: int) -> float:
    """Return the mean of recall among `candidates` and among half as many.

    Where all encoders find nearly everything among the candidates, half as many still tell them
    apart.
    """
    half = max(K, candidates // 2)
    return float(np.mean([(ranks < cutoff).mean() for cutoff in (half, candidates)]))


def ranks_of_best(
    search: VectorSearch,
    vectors: NDArray[np.float32],
    queries: QuerySet,
    best: NDArray[np.int64],
    max_rank: int,
    threads: int | None = None,
) -> NDArray[np.int64]:
    """Return the rank at which a search finds each of `best`.

    Parameters
    ----------
    search : VectorSearch
        Its labels are positions of documents.
    vectors : float32 (n, dimension)
        Of the queries.
    queries : QuerySet
        The same queries; their source documents have no rank.
    best : int64 (n, K)
    max_rank : int
        Number of ranks to search.

    Returns
    -------
    int64 (n, K)
        From 0; at least `max_rank` where the document was not found.
    """
    count = len(search)
    missing = max_rank + 1
    labels, _ = search.search(np.ascontiguousarray(vectors), min(missing, count), threads=threads)
    rank_of = np.full((len(labels), count + 1), missing)
    np.put_along_axis(rank_of, labels, np.broadcast_to(np.arange(labels.shape[1]), labels.shape), axis=1)
    # The last column stands for source documents that are not among those searched.
    rank_of[:, count] = missing
    ranks = np.take_along_axis(rank_of, best, axis=1)
    searched = (queries.source_documents >= 0) & (queries.source_documents < count)
    sources = np.where(searched, queries.source_documents, count)[:, np.newaxis]
    return ranks - (np.take_along_axis(rank_of, sources, axis=1) < ranks)
