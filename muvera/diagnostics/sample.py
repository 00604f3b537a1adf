"""A sample of documents and queries on which encoders are measured."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.batches import fit_share, pseudo_queries
from ..data.multivectors import MultiVectors, as_multivectors
from ..data.ranking import best_first
from ..encoders.base import EncoderConfig
from ..encoders.registry import make_encoder
from ..index.settings import EXACT_TOKENS
from ..reranking.chamfer import chamfer_matrix
from ..utils.checks import require_int

#: Number of exact best documents to find for each query.
K = 10

# Tokens of a pseudo-query, as many as ColBERT's queries have.
_WINDOW = 32

# Multiplications of exact Chamfer per query: a few seconds for all queries.
_PRODUCTS = 10**9


@dataclass(frozen=True, eq=False)
class Sample:
    """Documents of a collection, and queries whose exact answers among them are known.

    Encoders are fitted to the documents at the positions `fitting`.  Queries are real ones, or windows of other
    documents.  `sources` are the positions of the windows' documents, or -1 for real queries.  A window scores its own
    document -inf.
    `population` is the number of documents with tokens in the collection.
    """

    collection: MultiVectors
    population: int
    documents: MultiVectors
    fitting: NDArray[np.int64]
    queries: MultiVectors
    sources: NDArray[np.int64]
    threads: int | None

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """Exact scores, float32 (n_queries, n_documents)."""
        scores = chamfer_matrix(self.queries, self.documents, threads=self.threads)
        windows = np.flatnonzero(self.sources >= 0)
        scores[windows, self.sources[windows]] = -np.inf
        return scores

    @property
    def exact_search(self) -> bool:
        """True if the collection is so small that an index reads all tokens and needs no vectors."""
        return self.collection.num_tokens <= EXACT_TOKENS

    def ranks(self, documents: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the ranks of each query's exact ten best by the products of vectors, int64 (n_queries, 10)."""
        products = queries @ documents.T
        products[self.scores == -np.inf] = -np.inf
        ranks = np.argsort(np.argsort(-products, axis=1, kind="stable"), axis=1)
        best = np.stack([best_first(row, K) for row in self.scores])
        return np.take_along_axis(ranks, best, axis=1)

    def measure(self, config: EncoderConfig) -> tuple[NDArray[np.int64], tuple[float, float]]:
        """Return the ranks by an encoder's vectors, and the seconds to encode a document and a query."""
        encoder = make_encoder(config).fit(self.documents[self.fitting], threads=self.threads)

        def timed(encode: Any, texts: MultiVectors) -> tuple[NDArray[np.float32], float]:
            encode(texts[:1], threads=self.threads)  # compile before the clock starts
            begun = time.perf_counter()
            vectors = encode(texts, threads=self.threads)
            return vectors, (time.perf_counter() - begun) / len(texts)

        documents, document_seconds = timed(encoder.encode_documents, self.documents)
        queries, query_seconds = timed(encoder.encode_queries, self.queries)
        return self.ranks(documents, queries), (document_seconds, query_seconds)


def draw_sample(
    documents: Any,
    queries: Any,
    *,
    size: int,
    least: tuple[int, int],
    most_queries: int,
    min_fitting: int,
    seed: int,
    threads: int | None,
) -> Sample:
    """Draw at most `size` documents with tokens, and queries.

    Fewer queries than `most_queries` are drawn if tokens are many or wide.  If fewer than `min_fitting` documents
    would remain for fitting, encoders are fitted to all documents, and windows are cut from all of them.  Raise
    ValueError if fewer documents or queries than `least` have tokens.
    """
    require_int("seed", seed, 0)
    texts = as_multivectors(documents, "documents")
    filled = _with_tokens(texts, "documents", least[0])
    if queries is not None:
        real = as_multivectors(queries, "queries")
        real.require_dimension(texts.dimension, "queries", "documents")
        real.require_finite("queries")
        real = real[_with_tokens(real, "queries", least[1])]
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)]
    document_stream, fit_stream, query_stream = streams
    sampled = texts[np.sort(document_stream.permutation(filled)[:size])]
    sampled.require_finite("sample of documents")
    order = fit_stream.permutation(len(sampled))
    fitting, others = np.split(order, [round(fit_share(len(filled)) * len(sampled))])
    if len(fitting) < min_fitting:
        fitting = others = order
    fitting, others = np.sort(fitting), np.sort(others)
    length = _WINDOW if queries is None else max(1, real.num_tokens // len(real))
    products = sampled.num_tokens * sampled.dimension * length
    count = min(most_queries, max(most_queries // 10, _PRODUCTS * most_queries // products))
    if queries is None:
        drawn, cut = pseudo_queries(sampled[others], min(count, len(others)), _WINDOW, query_stream)
        sources = others[cut]
    else:
        drawn = real[np.sort(query_stream.permutation(len(real))[:count])]
        sources = np.full(len(drawn), -1)
    return Sample(texts, len(filled), sampled, fitting, drawn, sources, threads)


def _with_tokens(texts: MultiVectors, name: str, least: int) -> NDArray[np.int64]:
    """Return the positions of the texts with tokens."""
    filled = np.flatnonzero(texts.lengths > 0)
    if len(filled) < least:
        instead = "Give more" if name == "documents" else "Give more, or none to use windows of documents"
        raise ValueError(f"At least {least} {name} with tokens are needed, got {len(filled)}. {instead}.")
    return filled


def bullets(sentences: Iterable[str], pseudo_queries: bool) -> list[str]:
    """Return the lines of a list of sentences; the last one is a warning if there are no real queries."""
    warning = "Real queries can be harder than windows of documents. Pass real queries to be sure."
    lines: list[str] = []
    for sentence in [*sentences, *([warning] if pseudo_queries else [])]:
        lines += textwrap.wrap(sentence, 79, initial_indent="- ", subsequent_indent="  ")
    return lines
