"""Rank given texts for a query, without an index of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..data.multivectors import MultiVectors
from ..reranking.chamfer import chamfer_matrix
from .database import shared_words
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
from .ranking import add_parts


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
    maxsim: dict[int, float] = {}
    means: dict[int, float] = {}
    for batch in encode_in_batches(encoder.encode_documents, texts, list(range(len(texts)))):
        tokens += len(batch.tokens)
        scores = chamfer_matrix(encoded, batch, threads=threads)[0]
        cosines = np.einsum("ij,j->i", mean_vectors(batch), query_mean)
        for position, matrix, score, cosine in zip(
            batch.ids.tolist(), batch, scores.tolist(), cosines.tolist(), strict=True
        ):
            if not np.isfinite(score):  # the text is blank
                continue
            maxsim[position], best = score, matrix
            if passage is not None and len(matrix) > passage:
                maxsim[position], best = best_passage(encoded[0], matrix, passage)
            # A search in rows of a table also takes the mean of the best passage.
            means[position] = cosine if rows is None else float(best.mean(axis=0) @ query_mean)
    words = shared_words(query, range(len(texts)), texts) if weights.words else {}
    parts = add_parts(maxsim, words, means, weights, k)
    return Reranked([Hit(i, sum(parts[i].values()), texts[i], {}, parts[i]) for i in parts], tokens)
