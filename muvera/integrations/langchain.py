"""LangChain: a vector store whose texts are ranked by late interaction.

Needs the extra "langchain".
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from ..data.multivectors import MultiVectors
from ..data.validation import as_array
from ..metadata.filters import Filter
from ..texts.encoders.base import Side, TextEncoder, from_matrices, require_text_encoder
from ..texts.encoders.registry import load_text_encoder
from ..texts.text_index import TextIndex

__all__ = ["EmbeddingsEncoder", "MuveraVectorStore"]


class EmbeddingsEncoder:
    """LangChain's single-vector embeddings as a text encoder: one unit vector a text.

    Parameters
    ----------
    embeddings : langchain_core.embeddings.Embeddings
    """

    def __init__(self, embeddings: Embeddings) -> None:
        self.name = f"langchain:{type(embeddings).__name__}"
        self.embeddings = embeddings

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as documents."""
        return self._sets(self.embeddings.embed_documents(list(texts)) if texts else [])

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as queries."""
        return self._sets([self.embeddings.embed_query(text) for text in texts])

    def token_spans(self, text: str, side: Side) -> None:
        """Return None: the vector is of the whole text."""
        return None

    def _sets(self, vectors: Sequence[Sequence[float]]) -> MultiVectors:
        rows = as_array(vectors, "vectors").astype(np.float32, copy=False)
        rows = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.float32(1e-12))
        return from_matrices([row[np.newaxis] for row in rows], rows.shape[-1] if rows.ndim == 2 else 1)


class MuveraVectorStore(VectorStore):
    """A :class:`muvera.TextIndex` as LangChain's vector store.

    Scores are Chamfer similarities, sums over query tokens; filters are those of
    :mod:`muvera.metadata.filters`, such as ``{"year": {"$gte": 2000}}``.

    Parameters
    ----------
    index : TextIndex
        Its ids must be strings.
    """

    def __init__(self, index: TextIndex) -> None:
        self.index = index

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | TextEncoder | str,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **settings: Any,
    ) -> MuveraVectorStore:
        """Build a store of texts.

        Parameters
        ----------
        texts : list of str
        embedding : TextEncoder, its name, or Embeddings
            A late-interaction model, or LangChain's single vectors, of which a text then has one.
        metadatas : list of dict, optional
        ids : list of str, optional
        **settings
            As for :meth:`muvera.TextIndex.build`.
        """
        store = cls(TextIndex.build([], _as_encoder(embedding), **settings))
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **_: Any,
    ) -> list[str]:
        """Add texts, in place of those with the same ids; the last of equal ids wins."""
        found = list(texts)
        names = (
            [str(uuid.uuid4()) for _ in found] if ids is None else [one or str(uuid.uuid4()) for one in ids]
        )
        values = [{}] * len(found) if metadatas is None else metadatas
        last = {name: (text, meta) for name, text, meta in zip(names, found, values, strict=True)}
        if last:
            self.index.update(
                [text for text, _ in last.values()],
                ids=list(last),
                metadata=[meta for _, meta in last.values()],
            )
        return names

    def delete(self, ids: list[str] | None = None, **_: Any) -> bool:
        """Delete documents; ids that are not there are ignored.  Without ids, all are deleted."""
        self.index.delete([one.id for one in self.index] if ids is None else ids, missing="ignore")
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents that are there."""
        return [
            Document(page_content=one.text, metadata=one.metadata, id=str(one.id))
            for one in self.index.get(list(ids), missing="ignore")
        ]

    def similarity_search(
        self, query: str, k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[Document]:
        """Return the best documents, see :meth:`muvera.TextIndex.search` for what `options` may say."""
        return [document for document, _ in self.similarity_search_with_score(query, k, filter, **options)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[tuple[Document, float]]:
        """Return the best documents with their Chamfer similarities."""
        hits = self.index.search(query, k, where=filter, candidates=max(100, k), **options)
        return [
            (Document(page_content=hit.text, metadata=hit.metadata, id=str(hit.id)), hit.score)
            for hit in hits
        ]


def _as_encoder(embedding: Embeddings | TextEncoder | str) -> TextEncoder:
    if isinstance(embedding, str):
        return load_text_encoder(embedding)
    return (
        EmbeddingsEncoder(embedding) if isinstance(embedding, Embeddings) else require_text_encoder(embedding)
    )
