"""Rank given texts for a query, without an index of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..reranking.chamfer import chamfer_matrix
from .database import shared_words
from .encoders.base import ScoreWeights, TextEncoder, encode_in_batches, encode_texts
from .hit import Hit, add_parts, mean_vectors


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
    tokens = len(encoded.tokens)
    if not tokens:  # a blank query
        return Reranked([], 0)
    query_mean = mean_vectors(encoded)[0]
    maxsim: dict[int, float] = {}
    means: dict[int, float] = {}
    for batch in encode_in_batches(encoder.encode_documents, texts, list(range(len(texts)))):
        tokens += len(batch.tokens)
        scores = chamfer_matrix(encoded, batch, threads=threads)[0]
        cosines = np.einsum("ij,j->i", mean_vectors(batch), query_mean)
        for position, score, cosine in zip(
            batch.ids.tolist(), scores.tolist(), cosines.tolist(), strict=True
        ):
            if np.isfinite(score):  # else the text is blank
                maxsim[position] = score
                means[position] = cosine
    words = shared_words(query, range(len(texts)), texts) if weights.words else {}
    parts = add_parts(maxsim, words, means, weights, k)
    return Reranked([Hit(i, sum(parts[i].values()), texts[i], {}, parts[i]) for i in parts], tokens)
