"""Haystack: a document store and a retriever whose documents are ranked by late interaction.

Needs the extra "haystack".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils.filters import document_matches_filter

from ..texts.encoders.base import TextEncoder
from ..texts.text_index import TextIndex

__all__ = ["MuveraDocumentStore", "MuveraRetriever"]

# Where the whole of a Haystack document is kept.
_DOCUMENT = "document"


class MuveraDocumentStore:
    """A :class:`muvera.TextIndex` as Haystack's document store.

    Filters are Haystack's own and are evaluated by Haystack, one document after the other.

    Parameters
    ----------
    encoder : TextEncoder or str
        A late-interaction model; only a name can be written to a pipeline's file.
    path : str, optional
        The index's folder: read where it exists, written by :meth:`save`.
    """

    def __init__(self, encoder: TextEncoder | str = "minilm", path: str | None = None) -> None:
        self._encoder, self._path = encoder, path
        if path is not None and Path(path).exists():
            self.index = TextIndex.load(path, None if isinstance(encoder, str) else encoder)
        else:
            self.index = TextIndex.build([], encoder)

    def to_dict(self) -> dict[str, Any]:
        """Return what makes the store again."""
        name = self._encoder if isinstance(self._encoder, str) else self._encoder.name
        data: dict[str, Any] = default_to_dict(self, encoder=name, path=self._path)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MuveraDocumentStore:
        """Make the store that :meth:`to_dict` described."""
        made: MuveraDocumentStore = default_from_dict(cls, data)
        return made

    def save(self) -> None:
        """Write the index to its folder.

        Raises
        ------
        ValueError
            Where the store was made without a path.
        """
        if self._path is None:
            raise ValueError("This store has no path. Give one when it is made.")
        self.index.save(self._path)

    def count_documents(self) -> int:
        """Return the number of documents."""
        return len(self.index)

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Return the documents that satisfy Haystack's filters."""
        documents = [_document(one.metadata) for one in self.index]
        return [one for one in documents if not filters or document_matches_filter(filters, one)]

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Write documents, and return how many were written.

        Parameters
        ----------
        documents : list of Document
        policy : DuplicatePolicy
            FAIL (the default), SKIP or OVERWRITE those whose id is in use.

        Raises
        ------
        ValueError
            For anything but documents.
        DuplicateDocumentError
            For an id in use, where those are not skipped or overwritten.
        """
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise ValueError("documents must be a list of haystack Documents.")
        last = {one.id: one for one in documents}
        used = [name for name in last if name in self.index]
        if used and policy in (DuplicatePolicy.NONE, DuplicatePolicy.FAIL):
            raise DuplicateDocumentError(
                f"The document {used[0]!r} exists. Skip or overwrite it by a policy."
            )
        if policy == DuplicatePolicy.SKIP:
            last = {name: one for name, one in last.items() if name not in self.index}
        if last:
            values = [{_DOCUMENT: json.dumps(one.to_dict(flatten=False))} for one in last.values()]
            self.index.update([one.content or "" for one in last.values()], ids=list(last), metadata=values)
        return len(last)

    def delete_documents(self, document_ids: Sequence[str]) -> None:
        """Delete documents; ids that are not there are ignored."""
        self.index.delete(document_ids, missing="ignore")

    def search(
        self, query: str, top_k: int = 10, filters: dict[str, Any] | None = None, **options: Any
    ) -> list[Document]:
        """Return the best documents, their scores Chamfer similarities.

        Parameters
        ----------
        query : str
        top_k : int
        filters : dict, optional
            Haystack's.
        **options
            As for :meth:`muvera.TextIndex.search`.
        """
        allowed = None if not filters else [one.id for one in self.filter_documents(filters)]
        hits = self.index.search(query, top_k, ids=allowed, candidates=max(100, top_k), **options)
        return [replace(_document(hit.metadata), score=hit.score) for hit in hits]


@component
class MuveraRetriever:
    """Retrieves the best documents of a :class:`MuveraDocumentStore`.

    Parameters
    ----------
    document_store : MuveraDocumentStore
    filters : dict, optional
    top_k : int
    """

    def __init__(
        self, document_store: MuveraDocumentStore, filters: dict[str, Any] | None = None, top_k: int = 10
    ) -> None:
        self.document_store, self.filters, self.top_k = document_store, filters, top_k

    def to_dict(self) -> dict[str, Any]:
        """Return what makes the retriever again."""
        data: dict[str, Any] = default_to_dict(
            self, document_store=self.document_store.to_dict(), filters=self.filters, top_k=self.top_k
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MuveraRetriever:
        """Make the retriever that :meth:`to_dict` described."""
        parameters = data["init_parameters"]
        parameters["document_store"] = MuveraDocumentStore.from_dict(parameters["document_store"])
        made: MuveraRetriever = default_from_dict(cls, data)
        return made

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Return ``{"documents": [...]}``, best first."""
        found = self.document_store.search(query, top_k or self.top_k, filters or self.filters)
        return {"documents": found}


def _document(metadata: dict[str, Any]) -> Document:
    return Document.from_dict(json.loads(metadata[_DOCUMENT]))
