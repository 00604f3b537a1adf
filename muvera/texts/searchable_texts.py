"""SearchableTexts: everything that reads an index of texts and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from ..data.ranking import Ranking
from ..index.hybrid import hybrid_search
from ..index.muvera_index import MuveraIndex
from ..metadata.filters import Filter
from ..reranking.fusion import Method
from ..reranking.spans import rank_spans, spans_from_characters
from ..utils.checks import require_choice, require_int
from .database import DocumentDatabase, TextDocument
from .encoders.base import TextEncoder, as_texts, encode_texts
from .explanation import TextExplanation, explain_texts
from .hit import Hit
from .sentences import sentences_of

__all__ = ["WORDS", "SearchableTexts"]

#: The source of BM25's scores.
WORDS = "words"


class SearchableTexts:
    """The reading half of :class:`muvera.TextIndex`; several threads may use it at once."""

    def __init__(self, index: MuveraIndex, database: DocumentDatabase, encoder: TextEncoder) -> None:
        self._index, self._database, self._encoder = index, database, encoder

    # -- searching ------------------------------------------------------------

    def search(
        self,
        queries: str | Sequence[str],
        k: int = 10,
        *,
        where: Filter | None = None,
        ids: Sequence[int | str] | None = None,
        candidates: int = 100,
        words: int = 0,
        rankings: Mapping[str, Sequence[Ranking]] | None = None,
        weights: Mapping[str, float] | None = None,
        method: Method = "minmax",
        unit: Literal["document", "sentence"] = "document",
        alpha: float = 1.0,
        explain: bool = False,
        threads: int | None = None,
    ) -> Any:
        """Return the best texts for each query.

        Parameters
        ----------
        queries : str or sequence of str
            A blank query finds nothing.
        k : int
            At most so many; fewer where there are fewer.
        where : mapping, optional
            A condition on the metadata, see :mod:`muvera.metadata.filters`.
        ids : sequence of int or of str, optional
            Only among these; ids that are not there are ignored.
        candidates : int
            Texts that the first stage proposes and exact Chamfer orders; more find more and take longer.
        words : int
            Also order so many texts that share words with the query (BM25): these find names and numbers that
            a model has no vector for.  0: none.
        rankings : mapping of str to sequence of Ranking, optional
            What other first stages found, one ranking a query by the source's name, such as those of
            :class:`muvera.index.hybrid.SparseVectors`: also ordered.
        weights : mapping of str to float, optional
            Order by the weighted sum of scores: of "maxsim", of "words" where there are some, and of the other
            sources.  Default: by exact Chamfer similarity alone.
        method : {"minmax", "zscore", "sum", "rrf"}
            How scores of different kinds are made comparable, see :func:`muvera.fuse`.
        unit : {"document", "sentence"}
            With "sentence", the best sentences of the best `candidates` texts.
        alpha : float
            Weight of the whole text's score beside its sentence's.
        explain : bool
            Give every hit the words that answered; takes some tenths of a millisecond a hit.
        threads : int, optional

        Returns
        -------
        list of Hit, or a list of such lists
            One for each query; for a single string, its hits alone.

        Raises
        ------
        FilterError
            For a condition that cannot be understood.
        ValueError
            For rankings or weights that do not belong together, see :func:`muvera.hybrid_search`.
        """
        require_int("k", k, 1)
        require_int("words", words, 0)
        require_choice("unit", unit, ("document", "sentence"))
        asked = as_texts(queries, "queries")
        if not asked:
            return []
        encoded = encode_texts(self._encoder.encode_queries, asked)
        allowed = None if ids is None else list(ids)
        if where:
            kept, within = self._database.select(where), None if ids is None else set(ids)
            allowed = kept if within is None else [name for name in kept if name in within]
        wanted = k if unit == "document" else max(k, min(candidates, 10 * k))
        sources = dict(rankings or {})
        if words:
            if WORDS in sources:
                raise ValueError(f"{WORDS!r} is the name of BM25's ranking. Give the source another one.")
            sources[WORDS] = [self._matching_words(text, words, where) for text in asked]
        if sources or weights is not None:
            found = hybrid_search(
                self._index, encoded, sources, wanted,
                candidates=candidates, weights=weights, method=method, ids=allowed, threads=threads,
            )  # fmt: skip
        else:
            found = self._index.search(
                encoded, wanted, candidates=max(candidates, wanted), ids=allowed, threads=threads
            )
        hits = []
        for i, ranking in enumerate(found):
            if unit == "sentence":
                hits.append(self._sentences(encoded[i], ranking, weights is None, k, alpha))
            else:
                scores = dict(ranking)
                hits.append(
                    [
                        Hit(one.id, scores[one.id], one.text, one.metadata)
                        for one in self._documents(ranking.ids.tolist())
                    ]
                )
        if explain:
            hits = [self._explained(query, own) for query, own in zip(asked, hits, strict=True)]
        return hits[0] if isinstance(queries, str) else hits

    def _matching_words(self, text: str, k: int, where: Filter | None) -> Ranking:
        found = self._database.match_words(text, k, where)
        ids = np.array([name for name, _ in found]) if found else np.empty(0, np.int64)
        return Ranking(ids, np.array([score for _, score in found], np.float32))

    def _explained(self, query: str, hits: list[Hit]) -> list[Hit]:
        reasons = self.explain_all(query, [hit.id for hit in hits])
        return [replace(hit, explanation=reason) for hit, reason in zip(hits, reasons, strict=True)]

    def explain(self, query: str, id: int | str) -> TextExplanation:
        """Tell which words of a text answered which words of a query.

        Parameters
        ----------
        query : str
        id : int or str

        Returns
        -------
        TextExplanation

        Raises
        ------
        KeyError
            For an id that is not there.
        ValueError
            For a blank query or document, and where the encoder does not say which characters its tokens
            come from.
        """
        return self.explain_all(query, [id])[0]

    def explain_all(self, query: str, ids: Sequence[int | str]) -> list[TextExplanation]:
        """Explain several texts; the query is encoded once.  See :meth:`explain`."""
        documents = self.get(ids)
        if not documents:
            return []
        for name, text in [("query", query), *((f"document {one.id!r}", one.text) for one in documents)]:
            if not text.strip():
                raise ValueError(f"The {name} is blank: it has no words to explain. Give another one.")
        query_spans = self._spans(query, "query")
        asked = self._encoder.encode_queries([query])[0]
        return [
            explain_texts(
                query,
                document.text,
                asked,
                np.asarray(self._index.tokens([document.id])[0]),
                query_spans,
                self._spans(document.text, "document"),
            )
            for document in documents
        ]

    def _spans(self, text: str, side: Literal["document", "query"]) -> list[tuple[int, int]]:
        spans = self._encoder.token_spans(text, side)
        if spans is None:
            raise ValueError(
                f"The encoder {self._encoder.name} does not say which characters its tokens come from, so that "
                "words and sentences are unknown. Search whole texts, or use an encoder that does."
            )
        return spans

    def _sentences(self, query: Any, ranking: Ranking, exact: bool, k: int, alpha: float) -> list[Hit]:
        documents = self._documents(ranking.ids.tolist())
        if not documents:
            return []
        ranges = [sentences_of(document.text) for document in documents]
        spans = [
            spans_from_characters(own, self._spans(document.text, "document"))
            for document, own in zip(documents, ranges, strict=True)
        ]
        tokens = self._index.tokens([document.id for document in documents])
        known = dict(ranking)
        scores = [known[document.id] for document in documents] if exact else None
        hits = []
        for best in rank_spans(query, tokens, spans, k, alpha=alpha, document_scores=scores):
            document = documents[best.document]
            at = spans[best.document].tolist().index([best.start, best.stop])
            start, stop = ranges[best.document][at]
            hits.append(
                Hit(document.id, best.score, document.text[start:stop], document.metadata, (start, stop))
            )
        return hits

    def _documents(self, ids: list[int | str]) -> list[TextDocument]:
        """Return documents that are still there: another thread may have deleted some meanwhile."""
        return self._database.get(ids, missing="ignore")

    # -- looking --------------------------------------------------------------

    def get(
        self, ids: Sequence[int | str], *, missing: Literal["raise", "ignore"] = "raise"
    ) -> list[TextDocument]:
        """Return the texts and metadata of ids, in their order.

        Raises
        ------
        KeyError
            For an id that is not there, unless they are ignored.
        """
        return self._database.get(ids, missing=missing)

    def select(self, where: Filter) -> list[int | str]:
        """Return the ids of the texts that satisfy a condition, in the order of adding; of ``{}``, all.

        Raises
        ------
        FilterError
            For a condition that cannot be understood.
        """
        return self._database.select(where)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, id: object) -> bool:
        return id in self._index

    def __iter__(self) -> Iterator[TextDocument]:
        return self._database.documents()

    def __repr__(self) -> str:
        return f"TextIndex({len(self)} texts, encoder={self._encoder.name!r})"

    @property
    def index(self) -> MuveraIndex:
        """The index of token vectors, for what it can do besides; change texts through this object alone."""
        return self._index

    @property
    def encoder(self) -> TextEncoder:
        """The text encoder."""
        return self._encoder
