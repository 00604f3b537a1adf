"""The sample of a tuning, and the recall of encoders measured on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.sampling import fit_share
from ..diagnostics.sample import (
    WINDOW,
    AnsweredQueries,
    K,
    exact_search,
    query_count,
    ranks_of_best,
    windows_of,
)
from ..encoders.base import Encoder, EncoderConfig
from ..encoders.registry import make_encoder
from ..index.candidates import SCAN_FROM
from ..mips.exact import bytes_in_memory
from ..mips.scan import scan_bytes
from .result import TunedRow
from .search_space import EncoderCandidate

__all__ = [
    "MIN_HELD_OUT",
    "Evaluator",
    "TuningSample",
    "draw_sample",
    "mean_recall",
    "vector_bytes",
]

#: Smallest number of held-out queries if there are twice as many queries.
MIN_HELD_OUT = 15

# Largest number of queries; fewer are measured if tokens are many or wide.
_QUERIES = 300

# Samples of the bootstrap.
_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class TuningSample:
    """Documents in random order, and queries on which encoders are measured.

    Encoders are fitted to the documents at positions `fitting`.  Pseudo-queries come from the others.  The queries of
    `selection` select the encoder, those of `held_out` estimate its recall.  If queries were given,
    `pseudo_queries` are drawn in addition, to compare their selection.
    """

    documents: MultiVectors
    fitting: NDArray[np.int64]
    selection: AnsweredQueries
    held_out: AnsweredQueries
    pseudo_queries: AnsweredQueries | None


def draw_sample(
    documents: MultiVectors,
    filled: NDArray[np.int64],
    queries: MultiVectors | None,
    size: int,
    seed: int,
    threads: int | None = None,
) -> TuningSample:
    """Draw a random sample of at most `size` documents, with exact answers to its queries.

    `filled` are the positions of the documents with tokens; no others are read.  Each given query has a token.
    """
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)]
    document_stream, query_stream, split_stream, fit_stream = streams
    sampled = documents[filled[document_stream.permutation(len(filled))[:size]]]
    sampled = MultiVectors(sampled.tokens, sampled.offsets)  # without ids
    sampled.require_finite("documents")
    order = fit_stream.permutation(len(sampled))
    fitting, others = np.split(order, [round(fit_share(len(filled)) * len(sampled))])
    fitting, others = np.sort(fitting), np.sort(others)
    length = WINDOW if queries is None else max(1, queries.num_tokens // len(queries))
    count = query_count(sampled, length, _QUERIES)
    if queries is None:
        drawn, sources = windows_of(sampled, others, count, query_stream)
    else:
        drawn = queries[np.sort(query_stream.permutation(len(queries))[:count])]
        sources = np.full(len(drawn), -1)
    order = split_stream.permutation(len(drawn))
    held_out = max(round(len(drawn) / 3), min(MIN_HELD_OUT, len(drawn) // 2))
    selection, estimation = (
        AnsweredQueries.of(drawn[rows], sampled, sources[rows], threads)
        for rows in (np.sort(order[held_out:]), np.sort(order[:held_out]))
    )
    windows = None
    if queries is not None:
        cut, sources = windows_of(sampled, others, len(selection.queries), query_stream)
        windows = AnsweredQueries.of(cut, sampled, sources, threads)
    return TuningSample(sampled, fitting, selection, estimation, windows)


class Evaluator:
    """Measures encoders on a sample.  It stores fitted encoders, and one encoder's vectors at a time.

    Parameters
    ----------
    sample : TuningSample
    cutoffs : sequence of int
        Numbers of candidates at which recall is measured, ascending.
    candidates : int
        Documents that a search will rank exactly; one of the cutoffs.
    documents : int
        Documents of the whole collection, which decide the bytes of a vector.
    seed : int
        Of the confidence intervals.
    threads : int, optional
        Changes times, not recall.
    advance : callable
        Called with 1 after each step of the work.
    """

    def __init__(
        self,
        sample: TuningSample,
        cutoffs: Sequence[int],
        candidates: int,
        documents: int,
        seed: int,
        threads: int | None,
        advance: Callable[[int], object],
    ) -> None:
        self.sample, self.cutoffs, self.candidates = sample, cutoffs, candidates
        self.documents, self.seed, self.threads, self._advance = documents, seed, threads, advance
        self._encoders: dict[EncoderConfig, Encoder] = {}

    def encoder(self, config: EncoderConfig) -> Encoder:
        """Return the encoder of `config`, fitted to the sample's documents for fitting."""
        if config not in self._encoders:
            documents = self.sample.documents[self.sample.fitting]
            self._encoders[config] = make_encoder(config).fit(documents, threads=self.threads)
        return self._encoders[config]

    def keep(self, configs: Iterable[EncoderConfig]) -> None:
        """Drop the fitted encoders of all other configurations."""
        self._encoders = {config: self._encoders[config] for config in configs if config in self._encoders}

    def recall(self, encoders: Sequence[EncoderCandidate], count: int) -> list[float]:
        """Return the encoders' mean recall with the selection queries, among the first `count` documents."""
        queries = self.sample.selection
        best = queries.best(count)
        # The same share of the documents, so that sizes differ in a small sample as in a large one.
        candidates = max(K, round(self.candidates * count / len(self.sample.documents)))
        recalls: dict[EncoderCandidate, float] = {}
        for source in dict.fromkeys(one.source for one in encoders):
            encoder = self.encoder(source)
            documents = encoder.encode_documents(self.sample.documents[:count], threads=self.threads)
            vectors = encoder.encode_queries(queries.queries, threads=self.threads)
            for one in (one for one in encoders if one.source == source):
                search = exact_search(documents[:, : one.floats], self.threads)
                ranks = ranks_of_best(
                    search, vectors[:, : one.floats], queries, best, min(candidates, count), self.threads
                )
                recalls[one] = mean_recall(ranks, candidates)
            self._advance(1)
        return [recalls[one] for one in encoders]

    def rows(self, encoders: Sequence[EncoderCandidate]) -> tuple[TunedRow, ...]:
        """Measure encoders on the whole sample; return their rows, sorted by bytes."""
        rows: list[TunedRow] = []
        for source in dict.fromkeys(one.source for one in encoders):
            rows += self._rows_of(source, [one for one in encoders if one.source == source])
            self._advance(1)
        return tuple(sorted(rows, key=lambda row: (row.bytes, row.floats, row.name)))

    def alone(self, encoder: EncoderCandidate, row: TunedRow) -> TunedRow:
        """Return the encoder's row, measured with its own fit."""
        if encoder.source == encoder.config:
            return row
        return self.rows([EncoderCandidate(encoder.name, encoder.config, encoder.config)])[0]

    def _rows_of(self, source: EncoderConfig, encoders: Sequence[EncoderCandidate]) -> list[TunedRow]:
        """Measure encoders of one source; compilation is not timed."""
        sample, encoder, threads = self.sample, self.encoder(source), self.threads
        encoder.encode_documents(sample.documents[:1], threads=threads)
        encoder.encode_queries(sample.selection.queries[:1], threads=threads)
        begun = time.perf_counter()
        documents = encoder.encode_documents(sample.documents, threads=threads)
        encode_seconds = (time.perf_counter() - begun) / len(documents)
        sets = [one for one in (sample.selection, sample.held_out, sample.pseudo_queries) if one is not None]
        begun = time.perf_counter()
        vectors = [encoder.encode_queries(one.queries, threads=threads) for one in sets]
        count = sum(map(len, vectors))
        query_seconds = (time.perf_counter() - begun) / count
        best = [one.best(len(documents)) for one in sets]
        rows = []
        for one in encoders:
            search = exact_search(documents[:, : one.floats], threads)
            search.search(np.ascontiguousarray(vectors[0][:1, : one.floats]), 1, threads=threads)
            begun = time.perf_counter()
            selection, held_out, *pseudo = (
                ranks_of_best(search, own[:, : one.floats], queries, top, max(self.cutoffs), threads)
                for own, queries, top in zip(vectors, sets, best, strict=True)
            )
            search_seconds = (time.perf_counter() - begun) / count
            shares = (held_out < self.candidates).mean(axis=1)
            rows.append(
                TunedRow(
                    name=one.name,
                    config=one.config,
                    bytes=vector_bytes(one.floats, self.documents),
                    recall={cutoff: float((selection < cutoff).mean()) for cutoff in self.cutoffs},
                    mean_recall=mean_recall(selection, self.candidates),
                    pseudo_query_recall=mean_recall(pseudo[0], self.candidates) if pseudo else None,
                    held_out=float(shares.mean()),
                    interval=_interval(shares, self.seed),
                    encode_seconds=encode_seconds,
                    query_seconds=query_seconds + search_seconds,
                )
            )
        return rows


def vector_bytes(floats: int, documents: int) -> int:
    """Return the bytes of a vector in an index of this many documents."""
    return scan_bytes(floats) if documents >= SCAN_FROM else bytes_in_memory(floats)


def _interval(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Return the bootstrap's 95 per cent confidence interval of the mean."""
    draws = np.random.default_rng(seed).integers(0, len(values), (_DRAWS, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def mean_recall(ranks: NDArray[np.int64], candidates: int) -> float:
    """Return the mean of recall among `candidates` and among half as many.

    If all encoders have a recall of nearly 1 among the candidates, half as many still separate them.
    """
    half = max(K, candidates // 2)
    return float(np.mean([(ranks < cutoff).mean() for cutoff in (half, candidates)]))
