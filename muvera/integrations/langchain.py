"""LangChain: a vector store that ranks by late interaction.

Needs the extra "langchain".
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..metadata import Filter, TextDocument
from ..texts.encoders.base import TextEncoder
from ..texts.hit import Hit
from ..texts.text_index import TextIndex
from ..utils.checks import needing

if TYPE_CHECKING:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun, Callbacks

with needing("langchain-core", "langchain", "muvera.integrations.langchain"):
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import VectorStore


class MuveraVectorStore(VectorStore):
    """A :class:`muvera.TextIndex` as LangChain's vector store.

    Scores are the scores of :meth:`muvera.TextIndex.search`.  A filter is a condition
    of :mod:`muvera.metadata`.

    Parameters
    ----------
    index : TextIndex
        With string ids.
    """

    def __init__(self, index: TextIndex) -> None:
        self.index = index

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: TextEncoder | str,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **settings: Any,
    ) -> MuveraVectorStore:
        """Build a store of texts.

        Parameters
        ----------
        texts : list of str
            The texts to index.
        embedding : TextEncoder or str
            A late-interaction model, see :func:`muvera.load_text_encoder`.
        metadatas : list of dict, optional
            One for each text.
        ids : list of str, optional
            Default: random ids.
        **settings
            As for :meth:`muvera.TextIndex.build`.

        Returns
        -------
        MuveraVectorStore

        Raises
        ------
        TypeError
            For one of LangChain's embeddings, which make a single vector per text.
        """
        store = cls(TextIndex.build([], embedding, **settings))
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
        """Add texts, and replace texts with the same ids.

        Parameters
        ----------
        texts : iterable of str
            The texts to add.
        metadatas : list of dict, optional
            One for each text.
        ids : list of str, optional
            A repeated id gets its last text.  Default: random ids.
        **_
            Other arguments of LangChain, which are ignored.

        Returns
        -------
        list of str
            The ids, in the order of the texts.
        """
        contents = list(texts)
        names = [id or str(uuid.uuid4()) for id in ([None] * len(contents) if ids is None else ids)]
        values = [{}] * len(contents) if metadatas is None else metadatas
        text_of = dict(zip(names, contents, strict=True))
        metadata_of = dict(zip(names, values, strict=True))
        self.index.update(list(text_of.values()), ids=list(text_of), metadata=list(metadata_of.values()))
        return names

    def delete(self, ids: list[str] | None = None, **_: Any) -> bool:
        """Delete documents, or all documents without ids; unknown ids are ignored.

        Parameters
        ----------
        ids : list of str, optional
            Default: the ids of all documents.
        **_
            Other arguments of LangChain, which are ignored.

        Returns
        -------
        bool
            Always True.
        """
        self.index.delete(self.index.select({}) if ids is None else ids, missing="ignore")
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return documents by id; unknown ids are skipped.

        Parameters
        ----------
        ids : sequence of str
            The documents to return.

        Returns
        -------
        list of langchain_core.documents.Document
            In the order of `ids`.
        """
        return [_document(stored) for stored in self.index.get(ids, missing="ignore")]

    def similarity_search(
        self, query: str, k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[Document]:
        """Return the best documents.

        Parameters
        ----------
        query : str
            A question, or other words to search for.
        k : int
            Maximum number of documents.
        filter : mapping, optional
            As for :meth:`similarity_search_with_score`.
        **options
            As for :meth:`similarity_search_with_score`.

        Returns
        -------
        list of langchain_core.documents.Document
            Best first.
        """
        return [document for document, _ in self.similarity_search_with_score(query, k, filter, **options)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter | None = None, **options: Any
    ) -> list[tuple[Document, float]]:
        """Return the best documents with their scores.

        Parameters
        ----------
        query : str
            A question, or other words to search for.
        k : int
            Maximum number of documents.
        filter : mapping, optional
            A condition of :mod:`muvera.metadata`.
        **options
            Other arguments of :meth:`muvera.TextIndex.search`, such as ``words=0``.

        Returns
        -------
        list of (Document, float)
            Best first; higher scores are better.
        """
        hits = self.index.search(query, k, where=filter, **options)
        return [(_document(hit), hit.score) for hit in hits]


class FunctionRetriever(BaseRetriever):
    """A retriever that returns the results of a function.

    It returns texts and their metadata for a query, best first.
    """

    function: Callable[[str], list[tuple[str, dict[str, Any]]]]

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document(page_content=text, metadata=metadata) for text, metadata in self.function(query)]


class FunctionCompressor(BaseDocumentCompressor):
    """A compressor that keeps the `k` documents that a function ranks best.

    It returns positions and scores for a query, texts and a number of results, best
    first.
    """

    function: Callable[[str, list[str], int], list[tuple[int, float]]]
    k: int = 5

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks = None, **kwargs: Any
    ) -> Sequence[Document]:
        """Return the best documents, best first, with ``metadata["relevance_score"]``.

        The keyword ``k`` replaces the maximum number of documents; `callbacks` and
        other keywords are ignored.
        """
        listed = list(documents)
        if not listed:
            return []
        best = self.function(query, [each.page_content for each in listed], kwargs.get("k", self.k))
        return [
            Document(
                page_content=listed[position].page_content,
                metadata={**listed[position].metadata, "relevance_score": score},
                id=listed[position].id,
            )
            for position, score in best
        ]


def _document(stored: TextDocument | Hit) -> Document:
    return Document(page_content=stored.text, metadata=stored.metadata, id=str(stored.id))
