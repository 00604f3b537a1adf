"""Haystack: a document store and a retriever that rank by late interaction.

Needs the extra "haystack".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..metadata import TextDocument
from ..texts.encoders.base import TextEncoder
from ..texts.hit import Hit
from ..texts.text_index import TextIndex
from ..utils.checks import needing

with needing("haystack", "haystack", "muvera.integrations.haystack"):
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy
    from haystack.utils.filters import document_matches_filter

# Metadata key of the whole Haystack document.
_DOCUMENT = "document"


class MuveraDocumentStore:
    """A :class:`muvera.TextIndex` as Haystack's document store.

    Haystack evaluates filters itself, one document after another.

    Parameters
    ----------
    encoder : TextEncoder or str
        A late-interaction model, see :func:`muvera.load_text_encoder`.  Only a name can
        be written to a pipeline's file.  Default: "static", a table of token vectors
        that needs no download.
    path : str, optional
        Folder of the index: loaded if it exists, written by :meth:`save`.
    index : TextIndex, optional
        Use this index and its encoder.  It may contain texts: each is a document of
        Haystack with the text's id as a string, and its metadata.  `path` is then
        only the folder that :meth:`save` writes.
    """

    def __init__(
        self,
        encoder: TextEncoder | str = "static",
        path: str | None = None,
        index: TextIndex | None = None,
    ) -> None:
        self._encoder = encoder if index is None else index.encoder
        self._path = path
        if index is not None:
            self.index = index
        elif path is not None and Path(path).exists():
            self.index = TextIndex.load(path, encoder)
        else:
            self.index = TextIndex.build([], encoder)

    def to_dict(self) -> dict[str, Any]:
        """Describe the store for :meth:`from_dict`.

        Returns
        -------
        dict
            The class, the encoder's name and the path; no documents.
        """
        name = self._encoder if isinstance(self._encoder, str) else self._encoder.name
        state: dict[str, Any] = default_to_dict(self, encoder=name, path=self._path)
        return state

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MuveraDocumentStore:
        """Create the store described by :meth:`to_dict`.

        Parameters
        ----------
        data : dict
            The description.

        Returns
        -------
        MuveraDocumentStore
            With the documents in its folder, if the description has a path.
        """
        store: MuveraDocumentStore = default_from_dict(cls, data)
        return store

    def save(self) -> None:
        """Write the index to its folder.

        Raises
        ------
        ValueError
            If the store has no path.
        FileExistsError, IndexFolderError
            As for :meth:`muvera.TextIndex.save`.
        """
        if self._path is None:
            raise ValueError("This store has no path. Give one when you create it.")
        self.index.save(self._path)

    def count_documents(self) -> int:
        """Return the number of documents.

        Returns
        -------
        int
        """
        return len(self.index)

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Return the documents that satisfy Haystack's filters.

        Parameters
        ----------
        filters : dict, optional
            Default: all documents.

        Returns
        -------
        list of haystack.Document
            In the order in which they were written.
        """
        documents = map(_document, self.index)
        return [
            document for document in documents if not filters or document_matches_filter(filters, document)
        ]

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Write documents.

        Parameters
        ----------
        documents : list of haystack.Document
            A repeated id gets its last document.
        policy : DuplicatePolicy
            What to do with ids that are in use: SKIP or OVERWRITE them, or raise.

        Returns
        -------
        int
            Number of documents that were written.

        Raises
        ------
        DuplicateDocumentError
            For an id in use, unless the policy is SKIP or OVERWRITE.
        ValueError
            If `documents` is not a list of Haystack documents.
        """
        if not isinstance(documents, list) or not all(
            isinstance(document, Document) for document in documents
        ):
            raise ValueError("documents must be a list of haystack Documents.")
        last = {document.id: document for document in documents}
        used = {str(id) for id in _ids_in(self.index, last) if id in self.index}
        if used and policy in (DuplicatePolicy.NONE, DuplicatePolicy.FAIL):
            raise DuplicateDocumentError(
                f"The document {next(iter(used))!r} exists. Give the policy DuplicatePolicy.SKIP or "
                "OVERWRITE."
            )
        if policy == DuplicatePolicy.SKIP:
            last = {id: document for id, document in last.items() if id not in used}
        texts = [document.content or "" for document in last.values()]
        metadata = [{_DOCUMENT: json.dumps(document.to_dict(flatten=False))} for document in last.values()]
        known = _ids_in(self.index, last)
        self.index.update(texts, ids=known if len(known) == len(last) else list(last), metadata=metadata)
        return len(last)

    def delete_documents(self, document_ids: Sequence[str]) -> None:
        """Delete documents; unknown ids are ignored.

        Parameters
        ----------
        document_ids : sequence of str
            The documents to delete.
        """
        self.index.delete(_ids_in(self.index, document_ids), missing="ignore")


@component
class MuveraRetriever:
    """Retrieves the best documents of a :class:`MuveraDocumentStore`.

    Parameters
    ----------
    document_store : MuveraDocumentStore
        The documents to search.
    filters : dict, optional
        Haystack's filters.
    top_k : int
        Maximum number of documents.
    """

    def __init__(
        self, document_store: MuveraDocumentStore, filters: dict[str, Any] | None = None, top_k: int = 10
    ) -> None:
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Find the best documents of a query.

        Parameters
        ----------
        query : str
            A question, or other words to search for.
        filters : dict, optional
            Default: the retriever's filters.
        top_k : int, optional
            Default: the retriever's number.

        Returns
        -------
        dict
            ``{"documents": [...]}``, best first, with their scores.
        """
        store = self.document_store
        chosen = filters or self.filters
        found = store.filter_documents(chosen) if chosen else []
        ids = _ids_in(store.index, [document.id for document in found]) if chosen else None
        hits = store.index.search(query, top_k or self.top_k, ids=ids)
        return {"documents": [replace(_document(hit), score=hit.score) for hit in hits]}


def _ids_in(index: TextIndex, names: Iterable[str]) -> list[int | str]:
    """Return Haystack's ids as ids of the index.

    Names of no integer are left out if the index has integers.
    """
    first = next(iter(index), None)
    if first is None or isinstance(first.id, str):
        return list(names)
    return [int(name) for name in names if re.fullmatch(r"-?\d+", name)]


def _document(stored: TextDocument | Hit) -> Document:
    if _DOCUMENT not in stored.metadata:
        return Document(id=str(stored.id), content=stored.text, meta=dict(stored.metadata))
    return Document.from_dict(json.loads(stored.metadata[_DOCUMENT]))
