"""Baselines: exhaustive Chamfer, and one vector per text."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from muvera import MultiVectors, load_text_encoder, top_k
from muvera.convert import pool_tokens, pool_words, word_numbers
from muvera.mips import make_search

from .base import Answers, Material, NotApplicableError, Ranked, System, timed_search


class Exhaustive(System):
    """The exact answer, without an index.

    With `pool`, documents are pooled first, and the scores are those of the pooled
    tokens: by a rule and the `factor` of :func:`muvera.convert.pool_tokens`, or "words"
    or "unique words" for :func:`muvera.convert.pool_words`.
    """

    name: ClassVar[str] = "exhaustive"

    chamfer: bool = True
    _pool: str | None = None
    _factor: float = 1.0

    def __init__(self, *, pool: str | None = None, factor: float = 1.0) -> None:
        self._pool = pool
        self._factor = factor
        self.chamfer = pool is None

    def build(self, material: Material) -> None:
        """Keep the token vectors, pooled if `pool` is given."""
        super().build(material)
        self._kept = self.documents
        if self._pool in ("words", "unique words"):
            self._kept = pool_words(self.documents, _words(material, unique=self._pool != "words"))
        elif self._pool is not None:
            self._kept = pool_tokens(self.documents, self._factor, self._pool)

    def search(self, queries: MultiVectors, k: int) -> Answers:
        """Score all documents."""

        def answer(_: int, query: MultiVectors) -> Ranked:
            ranking = top_k(query, self._kept, k, threads=self.threads)[0]
            return np.asarray(ranking.ids, np.int64), ranking.scores

        return timed_search(queries, k, answer)

    def bytes_per_document(self) -> float:
        """Return 0: only the token vectors are stored."""
        return 0.0

    def token_bytes_per_document(self) -> float:
        """Return the bytes of the kept tokens."""
        return self._kept.tokens.nbytes / len(self._kept)


def _words(material: Material, unique: bool) -> list[NDArray[np.int64]]:
    """Return the word numbers of all documents, whose tokens must be MiniLM's."""
    reason = "pool: words needs texts, and the collection has only token vectors."
    material.needs("document_texts", reason=reason)
    encoder = load_text_encoder("minilm")
    words = []
    for text, length in zip(
        material.collection.document_texts or [], material.documents.lengths, strict=True
    ):
        spans = encoder.token_spans(text, "document")
        if spans is None or len(spans) != length:
            raise NotApplicableError("pool: words needs the tokens of MiniLM.")
        words.append(word_numbers(text, spans, unique=unique))
    return words


class Pooled(System):
    """Single-vector search, then exact Chamfer reranking.

    Ordinary vector databases search like this.

    `vectors` is "mean" for the mean of a text's token vectors, scaled to length 1, or
    "stored" for the model's own single vectors.
    """

    name: ClassVar[str] = "pooled"
    chamfer: bool = True

    def __init__(self, *, vectors: Literal["mean", "stored"] = "mean") -> None:
        self._stored = vectors == "stored"

    def build(self, material: Material) -> None:
        """Pool the documents and add them to the search."""
        super().build(material)
        if self._stored:
            reason = "The collection has no stored single vectors. Use vectors: mean."
            material.needs("document_pooled", "query_pooled", reason=reason)
        self._query_vectors = material.collection.query_pooled
        vectors: Any = material.collection.document_pooled if self._stored else mean_vectors(self.documents)
        self._search = make_search("exact", vectors.shape[1])
        self._search.add(np.arange(len(vectors)), vectors, material.threads)

    def search(self, queries: MultiVectors, k: int, *, candidates: int = 100, rerank: bool = True) -> Answers:
        """Search by the single vector.

        With `rerank`, order the first `candidates` by exact Chamfer.
        """
        count = min(max(k, candidates) if rerank else k, len(self.documents))

        def answer(_: int, query: MultiVectors) -> Ranked:
            stored: Any = self._query_vectors
            vector = stored[query.ids] if self._stored else mean_vectors(query)
            ids, scores = self._search.search(vector, count, threads=self.threads)
            found = ids[0] >= 0
            if rerank:
                return self.ranked_exactly(query, ids[0][found], k)
            return ids[0][found], scores[0][found]

        return timed_search(queries, k, answer)

    def bytes_per_document(self) -> float:
        """Return the bytes of a stored vector."""
        return float(self._search.info()["bytes_per_vector"])


class Views(System):
    """Several vectors per text: the means of clusters of its tokens.

    A text's score is the largest inner product of its vectors with the mean of the
    query's tokens.  The best texts are ranked by exact Chamfer.
    """

    name: ClassVar[str] = "views"
    chamfer: bool = True

    def __init__(self, *, vectors: int = 4) -> None:
        self._count = vectors

    def build(self, material: Material) -> None:
        """Cluster each document's tokens by k-means, and add the means."""
        super().build(material)
        rng = np.random.default_rng(material.seed)
        views = [_cluster_means(tokens, self._count, rng) for tokens in self.documents]
        self._document_of = np.repeat(np.arange(len(views)), [len(own) for own in views])
        vectors = np.concatenate(views)
        self._search = make_search("exact", vectors.shape[1])
        self._search.add(np.arange(len(vectors)), vectors, material.threads)

    def search(self, queries: MultiVectors, k: int, *, candidates: int = 100, rerank: bool = True) -> Answers:
        """Search by all vectors.

        With `rerank`, order the first `candidates` texts by exact Chamfer.
        """
        count = min(max(k, candidates) if rerank else k, len(self.documents))

        def answer(_: int, query: MultiVectors) -> Ranked:
            # A text has at most `vectors` vectors, so this many contain `count` texts.
            most = min(count * self._count, len(self._document_of))
            found, scores = self._search.search(mean_vectors(query), most, threads=self.threads)
            texts = self._document_of[found[0]]
            first = np.sort(np.unique(texts, return_index=True)[1])[:count]
            if rerank:
                return self.ranked_exactly(query, texts[first], k)
            return texts[first], scores[0][first]

        return timed_search(queries, k, answer)

    def bytes_per_document(self) -> float:
        """Return the bytes of a document's vectors."""
        per_vector = float(self._search.info()["bytes_per_vector"])
        return per_vector * len(self._document_of) / len(self.documents)


def _cluster_means(tokens: NDArray[Any], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the means of clusters of a text's tokens, scaled to length 1."""
    rows = np.asarray(tokens, np.float64)
    labels: NDArray[Any] = np.arange(len(rows))
    if len(rows) > count:
        labels = kmeans2(rows, count, minit="++", rng=rng)[1]
    groups = [rows[labels == label] for label in np.unique(labels)]
    return mean_vectors(MultiVectors.from_arrays([group.astype(np.float32) for group in groups]))


def mean_vectors(texts: MultiVectors) -> NDArray[np.float32]:
    """Return each text's mean token vector, scaled to length 1.

    The result is float32 (n, dimension).
    """
    sums = np.add.reduceat(np.asarray(texts.tokens, np.float32), texts.offsets[:-1], axis=0)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    means: NDArray[np.float32] = sums / np.maximum(norms, np.float32(1e-12))
    return means
