"""PyLate: an index for ``pylate.retrieve.ColBERT``.  PyLate itself is not imported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..data.multivectors import MultiVectors
from ..data.validation import AnyArray
from ..index.muvera_index import MuveraIndex
from ..index.settings import DEFAULT_CANDIDATES


class MuveraPyLateIndex:
    """A :class:`muvera.MuveraIndex` with the interface of PyLate's indexes.

    Parameters
    ----------
    index : MuveraIndex, optional
        With string ids.  Default: built from the first documents.
    candidates : int
        Documents to rank exactly.  More raise recall and take longer, in proportion.

    Examples
    --------
    >>> import numpy as np
    >>> matrices = [np.eye(2, 4), np.eye(3, 4)[1:]]
    >>> index = MuveraPyLateIndex().add_documents(["a", "b"], matrices)
    >>> index(np.eye(1, 4)[np.newaxis], k=1)
    [[{'id': 'a', 'score': 1.0}]]
    """

    def __init__(self, index: MuveraIndex | None = None, candidates: int = DEFAULT_CANDIDATES) -> None:
        self.index = index
        self._candidates = candidates

    def add_documents(
        self, documents_ids: str | Sequence[str], documents_embeddings: Sequence[Any], **_: Any
    ) -> MuveraPyLateIndex:
        """Add documents, and replace documents with the same ids.

        Parameters
        ----------
        documents_ids : str or sequence of str
            The ids of the documents; a single string is one id.
        documents_embeddings : sequence of arrays or tensors (tokens, dimension)
            One for each id.
        **_
            Other arguments of PyLate, which are ignored.

        Returns
        -------
        MuveraPyLateIndex
            This index.
        """
        names = [documents_ids] if isinstance(documents_ids, str) else list(documents_ids)
        documents = MultiVectors.from_arrays(documents_embeddings, names)
        documents.require_single_parts("PyLate's interface")
        if self.index is None:
            self.index = MuveraIndex.build(documents)
        else:
            self.index.update(documents)
        return self

    def remove_documents(self, documents_ids: Sequence[str]) -> MuveraPyLateIndex:
        """Delete documents; unknown ids are ignored.

        Parameters
        ----------
        documents_ids : sequence of str
            The documents to delete.

        Returns
        -------
        MuveraPyLateIndex
            This index.
        """
        if self.index is not None:
            self.index.delete(documents_ids, missing="ignore")
        return self

    def __call__(
        self,
        queries_embeddings: Iterable[AnyArray],
        k: int = 10,
        subset: Sequence[Any] | None = None,
        **_: Any,
    ) -> list[list[dict[str, Any]]]:
        """Return the best documents for each query.

        Parameters
        ----------
        queries_embeddings : array or tensor (queries, tokens, dimension)
            Or a sequence of matrices (tokens, dimension).
        k : int
            Maximum number of documents for each query.
        subset : sequence of str, or one such sequence per query, optional
            Search only these ids.
        **_
            Other arguments of PyLate, which are ignored.

        Returns
        -------
        list of list of dict
            ``{"id", "score"}`` of each document, best first.
        """
        queries = MultiVectors.from_arrays(queries_embeddings, name="queries")
        if self.index is None:
            return [[] for _ in range(len(queries))]
        per_query = subset is not None and len(subset) > 0 and not isinstance(subset[0], str)
        subsets: Any = subset if per_query else [subset] * len(queries)
        rankings = [
            self.index.search(queries[[i]], k, candidates=max(self._candidates, k), ids=subsets[i])[0]
            for i in range(len(queries))
        ]
        return [[{"id": id, "score": score} for id, score in ranking] for ranking in rankings]

    def get_documents_embeddings(self, documents_ids: Sequence[Sequence[str]]) -> list[list[Any]]:
        """Return the token vectors of documents.

        Parameters
        ----------
        documents_ids : sequence of sequences of str
            One sequence for each query, such as the documents to rerank.

        Returns
        -------
        list of list of arrays (tokens, dimension)
            For each sequence of ids, one array for each id.

        Raises
        ------
        KeyError
            For an unknown id.
        """
        if self.index is None:
            raise KeyError("The index is empty. Add documents first.")
        every = self.index.tokens(dict.fromkeys(id for ids in documents_ids for id in ids).keys())
        tokens = dict(zip(every.ids.tolist(), every, strict=True))
        return [[tokens[id] for id in ids] for ids in documents_ids]
