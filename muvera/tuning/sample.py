"""The sample that encoders are measured on: documents, two sets of queries, exact answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.ranking import best_first
from ..data.sampling import fit_share, pseudo_queries
from ..reranking.chamfer import chamfer_matrix

__all__ = ["MIN_HELD_OUT", "K", "QuerySet", "TuningSample", "draw_sample"]

#: Number of exact best documents to find for each query.
K = 10

#: Smallest number of held-out queries, where there are twice as many queries.
MIN_HELD_OUT = 15

#: Tokens of a pseudo-query, as many as ColBERT's queries have.
WINDOW = 32

# Queries, and multiplications of exact Chamfer, some ten seconds' worth: longer or wider tokens
# mean fewer queries.
_QUERIES, _PRODUCTS, _MIN_QUERIES = 300, 3 * 10**11, 30


@dataclass(frozen=True)
class QuerySet:
    """Queries and their exact scores.

    Parameters
    ----------
    queries : MultiVectors
    scores : float32 (n_queries, n_documents)
        Exact Chamfer similarities with the sample's documents; -inf for the source document.
    source_documents : int64 (n_queries,)
        Position of the document that each query was cut out of, which is left out of its
        ranking; -1: none.
    """

    queries: MultiVectors
    scores: NDArray[np.float32]
    source_documents: NDArray[np.int64]

    def best(self, count: int) -> NDArray[np.int64]:
        """Return the exact best among the first `count` documents, int64 (n_queries, K)."""
        return np.stack([best_first(row[:count], K) for row in self.scores])


@dataclass(frozen=True)
class TuningSample:
    """Documents and queries that encoders are measured on.

    Parameters
    ----------
    documents : MultiVectors
        In random order, so that the first documents are a smaller sample.
    fitting : int64 (n,)
        Positions of the documents that encoders are fitted on.
    selection, held_out : QuerySet
        Queries that select the encoder, and others that estimate its recall.  Encoders are
        fitted neither on these nor on the documents that pseudo-queries were cut out of.
    pseudo_queries : QuerySet or None
        Where queries were given: pseudo-queries, to see what they would select.
    """

    documents: MultiVectors
    fitting: NDArray[np.int64]
    selection: QuerySet
    held_out: QuerySet
    pseudo_queries: QuerySet | None


def draw_sample(
    documents: MultiVectors,
    filled: NDArray[np.int64],
    queries: MultiVectors | None,
    size: int,
    seed: int,
    threads: int | None = None,
) -> TuningSample:
    """Return a random sample with exact answers to its queries.

    Parameters
    ----------
    documents : MultiVectors
    filled : int64 (n,)
        Positions of the documents that have a token; no others are read.
    queries : MultiVectors, optional
        Each with a token.
    size : int
        Largest number of documents.
    seed : int
    threads : int, optional

    Raises
    ------
    ValueError
        For a number in the documents that is not finite.
    """
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)]
    document_stream, query_stream, split_stream, fit_stream = streams
    sampled = _without_ids(documents[filled[document_stream.permutation(len(filled))[:size]]])
    sampled.require_finite("documents")
    order = fit_stream.permutation(len(sampled))
    fitting, others = np.split(order, [round(fit_share(len(filled)) * len(sampled))])
    length = WINDOW if queries is None else max(1, queries.num_tokens // len(queries))
    affordable = _PRODUCTS // (sampled.num_tokens * sampled.dimension * length)
    count = min(_QUERIES, max(_MIN_QUERIES, affordable))
    if queries is None:
        drawn, sources = _windows(sampled, np.sort(others), count, query_stream)
    else:
        drawn = queries[np.sort(query_stream.permutation(len(queries))[:count])]
        sources = np.full(len(drawn), -1)
    order = split_stream.permutation(len(drawn))
    held_out = max(round(len(drawn) / 3), min(MIN_HELD_OUT, len(drawn) // 2))
    selection, estimation = (
        _answered(drawn[rows], sampled, sources[rows], threads)
        for rows in (np.sort(order[held_out:]), np.sort(order[:held_out]))
    )
    windows = None
    if queries is not None:
        cut, sources = _windows(sampled, np.sort(others), len(selection.queries), query_stream)
        windows = _answered(cut, sampled, sources, threads)
    return TuningSample(sampled, np.sort(fitting), selection, estimation, windows)


def _windows(
    documents: MultiVectors, positions: NDArray[np.int64], count: int, stream: np.random.Generator
) -> tuple[MultiVectors, NDArray[np.int64]]:
    """Return windows of the documents at `positions`, and the position each was cut out of."""
    queries, sources = pseudo_queries(documents[positions], min(count, len(positions)), WINDOW, stream)
    return queries, positions[sources]


def _without_ids(texts: MultiVectors) -> MultiVectors:
    """Return the same texts with positions as ids: others are of no use here."""
    return MultiVectors(texts.tokens, texts.offsets)


def _answered(
    queries: MultiVectors, documents: MultiVectors, sources: NDArray[np.int64], threads: int | None
) -> QuerySet:
    scores = chamfer_matrix(queries, documents, threads=threads)
    cut = np.flatnonzero(sources >= 0)
    scores[cut, sources[cut]] = -np.inf
    return QuerySet(queries, scores, sources)
