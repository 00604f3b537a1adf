"""A sample of documents, and queries with exact answers on it, on which encoders are measured."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_multivectors
from ..data.ranking import best_first
from ..data.sampling import fit_share, pseudo_queries
from ..encoders.base import EncoderConfig
from ..encoders.registry import make_encoder
from ..reranking.chamfer import chamfer_matrix

#: Number of exact best documents to find for each query.
K = 10

# Tokens of a pseudo-query, as many as ColBERT's queries have.
_WINDOW = 32

# Multiplications of exact Chamfer per query: a few seconds for all queries.
_PRODUCTS = 10**9


@dataclass(frozen=True, eq=False)
class Sample:
    """Documents, and queries with their exact scores, float32 (n_queries, n_documents).

    Encoders are fitted to the documents at the positions `fitting`.  Queries are real ones, or windows of other
    documents.  `sources` are the positions of these documents, which score -inf; -1 for real queries.
    """

    documents: MultiVectors
    fitting: NDArray[np.int64]
    queries: MultiVectors
    sources: NDArray[np.int64]
    scores: NDArray[np.float32]

    def ranks(self, documents: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the ranks of each query's exact ten best by the products of vectors, int64 (n_queries, 10)."""
        products = queries @ documents.T
        products[self.scores == -np.inf] = -np.inf
        ranks = np.argsort(np.argsort(-products, axis=1, kind="stable"), axis=1)
        best = np.stack([best_first(row, K) for row in self.scores])
        return np.take_along_axis(ranks, best, axis=1)

    def measure(
        self, config: EncoderConfig, threads: int | None
    ) -> tuple[NDArray[np.int64], tuple[float, float]]:
        """Return the ranks by an encoder's vectors, and the seconds to encode a document and a query."""
        encoder = make_encoder(config).fit(self.documents[self.fitting], threads=threads)

        def timed(encode: Any, texts: MultiVectors) -> tuple[NDArray[np.float32], float]:
            encode(texts[:1], threads=threads)  # compile before the clock starts
            begun = time.perf_counter()
            vectors = encode(texts, threads=threads)
            return vectors, (time.perf_counter() - begun) / len(texts)

        documents, document_seconds = timed(encoder.encode_documents, self.documents)
        queries, query_seconds = timed(encoder.encode_queries, self.queries)
        return self.ranks(documents, queries), (document_seconds, query_seconds)


def draw_sample(
    documents: MultiVectors,
    filled: NDArray[np.int64],
    queries: MultiVectors | None,
    *,
    size: int,
    most_queries: int,
    min_fitting: int,
    seed: int,
    threads: int | None,
) -> Sample:
    """Draw at most `size` of the documents at `filled`, and score them with queries.

    Fewer queries than `most_queries` are drawn if tokens are many or wide.  If fewer than `min_fitting` documents
    would be fitted to, all documents are fitted to and cut into windows.
    """
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)]
    document_stream, fit_stream, query_stream = streams
    sampled = documents[np.sort(document_stream.permutation(filled)[:size])]
    sampled.require_finite("sample of documents")
    order = fit_stream.permutation(len(sampled))
    fitting, others = np.split(order, [round(fit_share(len(filled)) * len(sampled))])
    if len(fitting) < min_fitting:
        fitting = others = order
    fitting, others = np.sort(fitting), np.sort(others)
    length = _WINDOW if queries is None else max(1, queries.num_tokens // len(queries))
    products = sampled.num_tokens * sampled.dimension * length
    count = min(most_queries, max(most_queries // 10, _PRODUCTS * most_queries // products))
    if queries is None:
        drawn, cut = pseudo_queries(sampled[others], min(count, len(others)), _WINDOW, query_stream)
        sources = others[cut]
    else:
        drawn = queries[np.sort(query_stream.permutation(len(queries))[:count])]
        sources = np.full(len(drawn), -1)
    scores = chamfer_matrix(drawn, sampled, threads=threads)
    windows = np.flatnonzero(sources >= 0)
    scores[windows, sources[windows]] = -np.inf
    return Sample(sampled, fitting, drawn, sources, scores)


def with_tokens(texts: MultiVectors, name: str, least: int) -> NDArray[np.int64]:
    """Return the positions of the texts with tokens; raise ValueError if there are fewer than `least`."""
    filled = np.flatnonzero(texts.lengths > 0)
    if len(filled) < least:
        instead = "Give more" if name == "documents" else "Give more, or none to use windows of documents"
        raise ValueError(f"At least {least} {name} with tokens are needed, got {len(filled)}. {instead}.")
    return filled


def checked_queries(queries: Any, dimension: int, least: int) -> MultiVectors | None:
    """Return the queries with tokens, at least `least`; None if there are no queries."""
    if queries is None:
        return None
    texts = as_multivectors(queries, "queries")
    texts.require_dimension(dimension, "queries", "documents")
    texts.require_finite("queries")
    return texts[with_tokens(texts, "queries", least)]


def bullets(sentences: Iterable[str], pseudo_queries: bool) -> list[str]:
    """Return the lines of a list of sentences; the last one is a warning if there are no real queries."""
    warning = "Real queries can be harder than windows of documents. Pass real queries to be sure."
    lines: list[str] = []
    for sentence in [*sentences, *([warning] if pseudo_queries else [])]:
        lines += textwrap.wrap(sentence, 79, initial_indent="- ", subsequent_indent="  ")
    return lines
