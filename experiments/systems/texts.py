"""Systems that read texts: BM25, hybrid search, and TextIndex.

Hybrid search combines several first stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors, MuveraIndex, Ranking, TextIndex, hybrid_search
from muvera.data.ranking import best_first
from muvera.utils.checks import import_extra

from .base import Answers, Material, Ranked, System, timed_search

# First stages of a hybrid search: the index's vectors, BM25, the model's own single
# vectors.
_SOURCES = ("vectors", "words", "single")


class Words:
    """BM25 over English texts, without the most common English words.

    With `stems`, endings do not count: "trees" is the word "tree".
    """

    def __init__(self, texts: list[str], *, stems: bool = False) -> None:
        self._library = import_extra("bm25s", "experiments", "BM25")
        self._how: dict[str, Any] = {"stopwords": "en", "show_progress": False}
        if stems:
            library = import_extra("py_rust_stemmers", "experiments", "BM25 with stems")
            stemmer = library.SnowballStemmer("english")
            self._how["stemmer"] = lambda words: stemmer.stem_words_parallel(list(words))
        self._count = len(texts)
        self.index: Any = self._library.BM25()
        self.index.index(self._library.tokenize(texts, **self._how), show_progress=False)

    def scores(self, text: str) -> NDArray[np.float32]:
        """Return the score of each text for a query."""
        words = self._library.tokenize(text, return_ids=False, **self._how)[0]
        # bm25s refuses a query without words, for example of stop words only.
        return np.asarray(self.index.get_scores(words) if words else np.zeros(self._count), np.float32)


class BM25(System):
    """BM25 as the first stage, without the most common English words.

    `stems` is as for :class:`Words`.
    """

    name: ClassVar[str] = "bm25"
    chamfer: bool = True

    def __init__(self, *, stems: bool = False) -> None:
        self._stems = stems

    def build(self, material: Material) -> None:
        """Count the documents' words."""
        reason = "bm25 needs texts, and the collection has only token vectors."
        material.needs("document_texts", "query_texts", reason=reason)
        super().build(material)
        self._queries = material.collection.query_texts or []
        self._words = Words(material.collection.document_texts or [], stems=self._stems)

    def search(self, queries: MultiVectors, k: int, *, candidates: int = 100, rerank: bool = True) -> Answers:
        """Search by BM25.

        With `rerank`, order the first `candidates` by exact Chamfer.
        """

        def answer(_: int, query: MultiVectors) -> Ranked:
            scores = self._words.scores(self._queries[int(query.ids[0])])
            best = best_first(scores, max(k, candidates) if rerank else k)
            return self.ranked_exactly(query, best, k) if rerank else (best, scores[best])

        return timed_search(queries, k, answer)

    def bytes_per_document(self) -> float:
        """Return the size of the score matrix, without the vocabulary's strings."""
        arrays = [self._words.index.scores[name] for name in ("data", "indices", "indptr")]
        return float(sum(array.nbytes for array in arrays)) / len(self.documents)


class Hybrid(System):
    """:func:`muvera.hybrid_search` over several first stages.

    They are "vectors", "words" (BM25) and "single" vectors.
    """

    name: ClassVar[str] = "hybrid"

    def __init__(self, *, sources: list[str] | None = None) -> None:
        self._sources = ["vectors"] if sources is None else sources
        if not self._sources or not set(self._sources) <= set(_SOURCES):
            raise ValueError(f"sources must be some of {', '.join(_SOURCES)}, got {self._sources}.")

    def build(self, material: Material) -> None:
        """Index token vectors, words and single vectors."""
        super().build(material)
        self._data: Any = material.collection
        reason = "hybrid needs texts, and the collection has only token vectors."
        material.needs("document_texts", "query_texts", reason=reason)
        if "single" in self._sources:
            reason = "The collection has no stored single vectors."
            material.needs("document_pooled", "query_pooled", reason=reason)
        if "hybrid" not in material.shared:  # the same for all systems
            how: dict[str, Any] = {"exact_tokens": 0, "threads": self.threads, "backend": "exact"}
            material.shared["hybrid"] = MuveraIndex.build(self.documents, **how)
        self._index = material.shared["hybrid"]
        if "words" in self._sources:
            self._words = Words(material.collection.document_texts or [])
        if "single" in self._sources:
            pooled: Any = self._data.document_pooled
            self._single = MuveraIndex.build(
                list(pooled[:, np.newaxis]), exact_tokens=1 << 60, threads=self.threads
            )

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        candidates: int = 100,
        weights: dict[str, float] | None = None,
        method: Any = "minmax",
    ) -> Answers:
        """Search all sources, each for `candidates` documents.

        See :func:`muvera.hybrid_search`.
        """
        count = candidates if "vectors" in self._sources else 0
        how: dict[str, Any] = {"candidates": count, "weights": weights, "method": method}

        def answer(_: int, query: MultiVectors) -> Ranked:
            position = int(query.ids[0])
            rankings = self._rankings(position, candidates)
            best = hybrid_search(self._index, query, rankings, k, threads=self.threads, **how)[0]
            return np.asarray(best.ids, np.int64), best.scores

        return timed_search(queries, k, answer)

    def _rankings(self, position: int, count: int) -> dict[str, list[Ranking]]:
        rankings = {}
        if "words" in self._sources:
            scores = self._words.scores(self._data.query_texts[position])
            best = best_first(scores, count)
            best = best[scores[best] > 0]
            rankings["words"] = [Ranking(best, scores[best])]
        if "single" in self._sources:
            vector = self._data.query_pooled[position : position + 1]
            rankings["single"] = self._single.search(vector, count, threads=self.threads)
        return rankings

    def bytes_per_document(self) -> float:
        """Return the bytes of a document's vector, without words and single vectors."""
        return float(self._index.config.vector_dimension * 4)


class StoredTokens:
    """A text encoder that looks up a collection's tokens by text."""

    name = "stored"

    def __init__(self, collection: Any) -> None:
        self._dimension = collection.documents.dimension
        self._documents = dict(zip(collection.document_texts, collection.documents, strict=True))
        self._queries = dict(zip(collection.query_texts, collection.queries, strict=True))

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        """Return the stored tokens of documents."""
        return MultiVectors.from_arrays([self._documents[text] for text in texts], dimension=self._dimension)

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Return the stored tokens of queries."""
        return MultiVectors.from_arrays([self._queries[text] for text in texts], dimension=self._dimension)

    def token_spans(self, text: str, side: str) -> None:
        """Return None: the characters of tokens are not stored."""
        return None


class Texts(System):
    """:class:`muvera.TextIndex` with the collection's tokens.

    `settings` are for :meth:`muvera.TextIndex.build`.
    """

    name: ClassVar[str] = "texts"

    def __init__(self, *, settings: dict[str, Any] | None = None) -> None:
        self._settings = settings or {}

    def build(self, material: Material) -> None:
        """Index the texts, and save the folder."""
        super().build(material)
        reason = "texts needs texts, and the collection has only token vectors."
        material.needs("document_texts", "query_texts", reason=reason)
        self._queries: Any = material.collection.query_texts
        self._folder = material.folder / "texts"
        self._index = TextIndex.build(
            material.collection.document_texts or [], StoredTokens(material.collection), path=self._folder,
            threads=self.threads, **self._settings,
        )  # fmt: skip

    def search(
        self, queries: MultiVectors, k: int, *, words: float | None = None, mean: float | None = None
    ) -> Answers:
        """Search texts.

        `words` and `mean` are weights, see :meth:`muvera.TextIndex.search`; 1 as
        `words` ranks by words alone.
        """

        def answer(_: int, query: MultiVectors) -> Ranked:
            text = self._queries[int(query.ids[0])]
            if words == 1:
                store: Any = self._index._texts
                hits: Any = store.database.match_words(text, k)
            else:
                found = self._index.search(text, k, threads=self.threads, words=words, mean=mean)
                hits = [(hit.id, hit.score) for hit in found]
            ids = np.array([id for id, _ in hits], np.int64)
            return ids, np.array([score for _, score in hits], np.float32)

        return timed_search(queries, k, answer)

    def bytes_per_document(self) -> float:
        """Return the size of the saved folder: tokens, vectors, texts and words."""
        files = [path.stat().st_size for path in self._folder.rglob("*") if path.is_file()]
        return sum(files) / len(self.documents)

    def reads_tokens(self, **query: Any) -> bool:
        """Return False: the folder contains the tokens."""
        return False
