"""Rank given pages for a query, without an index of them."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.multivectors import MultiVectors
from ..reranking.chamfer import chamfer_matrix
from ..texts.database import shared_words
from ..texts.encoders.base import ScoreWeights, TableEncoder
from ..texts.ranking import Parts, add_parts
from ..texts.reranking import rerank_encoded
from .page import Page
from .query import PageQuery


def rank_pages(
    pages: Sequence[Page],
    query: PageQuery,
    k: int,
    weights: ScoreWeights,
    reader: TableEncoder | None,
    threads: int | None,
) -> Parts:
    """Return the parts of the scores of at most `k` pages by position, best first.

    `reader` encodes the text of pages that have no vectors.
    """
    if not pages or not len(query.vectors):
        return {}
    encoded = MultiVectors.from_arrays([query.vectors])
    texts = [page.text for page in pages]
    if reader is not None:
        hits = rerank_encoded(reader, encoded, query.text, texts, k, weights, threads).hits
        return {hit.id: hit.parts for hit in hits}
    vectors = MultiVectors.from_arrays([page.vectors for page in pages])
    scores = chamfer_matrix(encoded, vectors, threads=threads)[0]
    words = shared_words(query.text, range(len(pages)), texts) if weights.words else {}
    return add_parts(dict(enumerate(scores.tolist())), words, {}, weights, k)
