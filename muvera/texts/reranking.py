"""Rank given texts for a query, without an index of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..data.multivectors import MultiVectors
from ..reranking.chamfer import chamfer_matrix
from .encoders.base import (
    ScoreWeights,
    TextEncoder,
    encode_in_batches,
    encode_texts,
    passage_length,
    table_encoder,
)
from .hit import Hit, mean_vectors
from .passages import best_passage
from .ranking import Candidates, query_unit
from .words import word_scores


class Reranked(NamedTuple):
    """Texts in the order of their scores, and the cost of scoring them."""

    hits: list[Hit]  #: Best first; ``id`` is the text's position.
    tokens: int  #: Number of token vectors of the query and the texts.


def rerank_texts(
    encoder: TextEncoder,
    query: str,
    texts: Sequence[str],
    k: int,
    weights: ScoreWeights,
    threads: int | None,
) -> Reranked:
    """Rank texts as :meth:`muvera.TextIndex.rerank` does, and return at most `k`."""
    encoded = encode_texts(encoder.encode_queries, [query])
    return rerank_encoded(encoder, encoded, query, texts, k, weights, threads)


def rerank_encoded(
    encoder: TextEncoder,
    encoded: MultiVectors,
    query: str,
    texts: Sequence[str],
    k: int,
    weights: ScoreWeights,
    threads: int | None,
) -> Reranked:
    """Rank texts for one encoded query; its words are those of `query`."""
    tokens = len(encoded.tokens)
    if not tokens:  # a blank query
        return Reranked([], 0)
    query_mean = mean_vectors(encoded)[0]
    rows = table_encoder(encoder)
    passage = passage_length(encoder) if rows is None else rows.passage
    maxsim = np.full(len(texts), -np.inf)
    means = np.zeros(len(texts))
    for batch in encode_in_batches(encoder.encode_documents, texts, list(range(len(texts)))):
        tokens += len(batch.tokens)
        places = batch.ids
        maxsim[places] = chamfer_matrix(encoded, batch, threads=threads)[0]
        means[places] = np.einsum("ij,j->i", mean_vectors(batch), query_mean)
        if passage is not None:
            for at in np.flatnonzero(batch.lengths > passage).tolist():
                maxsim[places[at]] = best_passage(encoded[0], batch[at], passage)
    words = word_scores(query, texts) if weights.words else np.zeros(len(texts))
    filled = np.flatnonzero(np.isfinite(maxsim))  # blank texts are left out
    candidates = Candidates(query_unit(encoded[0]), maxsim, words, means).at(filled)
    parts = candidates.parts(filled.tolist(), weights, k)
    return Reranked([Hit(i, sum(parts[i].values()), texts[i], {}, parts[i]) for i in parts], tokens)
