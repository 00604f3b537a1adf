"""PyLate: an index that ``pylate.retrieve.ColBERT`` searches.

Needs no import of PyLate: its retriever takes any object with these methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..index.muvera_index import MuveraIndex
from .token_arrays import multivectors_of

__all__ = ["MuveraPyLateIndex"]


class MuveraPyLateIndex:
    """A :class:`muvera.MuveraIndex` with the interface of PyLate's indexes.

    Parameters
    ----------
    index : MuveraIndex, optional
        With string ids.  Default: one is made by the first documents.
    candidates : int
        Documents that are ranked exactly.

    Examples
    --------
    >>> import numpy as np
    >>> index = MuveraPyLateIndex().add_documents(["a", "b"], [np.eye(2, 4), np.eye(3, 4)[1:]])
    >>> index(np.eye(1, 4)[np.newaxis], k=1)
    [[{'id': 'a', 'score': 1.0}]]
    """

    def __init__(self, index: MuveraIndex | None = None, candidates: int = 100) -> None:
        self.index, self._candidates = index, candidates

    def add_documents(
        self, documents_ids: str | Sequence[str], documents_embeddings: Sequence[Any], **_: Any
    ) -> MuveraPyLateIndex:
        """Add documents, in place of those with the same ids.

        Parameters
        ----------
        documents_ids : str or sequence of str
        documents_embeddings : sequence of (tokens, dimension) arrays or tensors

        Returns
        -------
        MuveraPyLateIndex
            Itself.
        """
        names = [documents_ids] if isinstance(documents_ids, str) else list(documents_ids)
        documents = multivectors_of(documents_embeddings).with_ids(names)
        if self.index is None:
            self.index = MuveraIndex.build(documents)
        else:
            self.index.update(documents)
        return self

    def remove_documents(self, documents_ids: Sequence[str]) -> MuveraPyLateIndex:
        """Delete documents; ids that are not there are ignored."""
        if self.index is not None:
            self.index.delete(documents_ids, missing="ignore")
        return self

    def __call__(
        self, queries_embeddings: Any, k: int = 10, subset: Sequence[Any] | None = None, **_: Any
    ) -> list[list[dict[str, Any]]]:
        """Return ``{"id", "score"}`` of the best documents for each query.

        Parameters
        ----------
        queries_embeddings : (queries, tokens, dimension) array or tensor, or a sequence of matrices
        k : int
        subset : sequence of str, or one such sequence a query, optional
            Search only among these ids.
        """
        queries = multivectors_of(queries_embeddings)
        if self.index is None:
            return [[] for _ in range(len(queries))]
        each = subset is not None and len(subset) > 0 and not isinstance(subset[0], str)
        found = []
        for i in range(len(queries)):
            allowed = subset[i] if each and subset is not None else subset
            found += self.index.search(
                queries[i : i + 1], k, candidates=max(self._candidates, k), ids=allowed
            )
        return [[{"id": name, "score": score} for name, score in ranking] for ranking in found]

    def get_documents_embeddings(self, documents_ids: Sequence[Sequence[str]]) -> list[list[Any]]:
        """Return the token vectors of documents, for each collection of ids."""
        if self.index is None:
            raise KeyError("The index is empty: there are no documents to return.")
        return [[document.tokens for document in self.index.get(list(names))] for names in documents_ids]
