"""First stages that a model or another program provides: sparse or dense vectors of whole documents.

Both find documents by the largest inner product and know them by their ids, so that their rankings go into
:func:`muvera.hybrid_search` beside those of an index.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from ..data.ranking import Ranking, best_first
from ..data.validation import Ids, as_array, as_ids
from ..utils.checks import require_int
from .base import checked_vectors
from .exact import ExactSearch

__all__ = ["DenseVectors", "SparseVectors"]


class SparseVectors:
    """Sparse vectors of documents, such as those of SPLADE or the lexical weights of BGE-M3.

    The time of a query is in proportion to the documents that share its terms.

    Parameters
    ----------
    documents : sparse matrix (n, terms), or a sequence of mappings of term to weight
        A matrix of SciPy in any format; terms of mappings are strings or integers.
    ids : sequence of int or of str, optional
        Default: 0, 1, 2, ...

    Raises
    ------
    TypeError, ValueError
        For anything else, a weight that is not finite, or not one id for each document.

    Examples
    --------
    >>> vectors = SparseVectors([{"red": 1.0, "apple": 2.0}, {"green": 1.0}], ids=["a", "b"])
    >>> list(vectors.search([{"apple": 0.5, "unknown": 9.0}])[0])
    [('a', 1.0)]
    """

    def __init__(self, documents: Any, ids: Sequence[int] | Sequence[str] | None = None) -> None:
        self._terms: dict[Hashable, int] | None = None if sparse.issparse(documents) else {}
        matrix = self._as_matrix(documents, "documents", learn=True)
        self._ids = _ids_of(ids, matrix.shape[0])
        self._dimension = int(matrix.shape[1])
        self._postings = sparse.csr_array(matrix.T)
        self._postings.sort_indices()

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self._ids)

    def search(self, queries: Any, k: int = 100) -> list[Ranking]:
        """Return the documents of the largest inner product with each query.

        Parameters
        ----------
        queries : as the documents
            Terms that no document has are left out.
        k : int
            How many to return at most.

        Returns
        -------
        list of Ranking
            Ties go to the earlier document; documents whose inner product is 0, as of those that share no term
            with the query, never appear.
        """
        require_int("k", k, 1)
        asked = self._as_matrix(queries, "queries", learn=False)
        found = sparse.csr_array(asked @ self._postings)
        found.sort_indices()
        rankings = []
        for start, stop in zip(found.indptr[:-1], found.indptr[1:], strict=True):
            scores = np.asarray(found.data[start:stop], np.float32)
            best = best_first(scores, min(k, len(scores)))
            rankings.append(Ranking(self._ids[found.indices[start:stop][best]], scores[best]))
        return rankings

    def _as_matrix(self, given: Any, name: str, learn: bool) -> Any:
        if self._terms is None:
            if not sparse.issparse(given):
                raise TypeError(
                    f"{name} must be a sparse matrix, as the documents are, got {type(given).__name__}."
                )
            matrix: Any = sparse.csr_array(given, dtype=np.float64)  # type: ignore[call-overload]
            if not learn and matrix.shape[1] != self._dimension:
                raise ValueError(
                    f"{name} have {matrix.shape[1]} columns, but these documents have {self._dimension} terms."
                )
        else:
            matrix = self._of_mappings(given, name, learn)
        wrong = np.flatnonzero(~np.isfinite(matrix.data))
        if len(wrong):
            row = int(np.searchsorted(matrix.indptr, wrong[0], side="right")) - 1
            raise ValueError(f"{name}[{row}] has the weight {matrix.data[wrong[0]]}: weights must be finite.")
        return matrix

    def _of_mappings(self, given: Any, name: str, learn: bool) -> Any:
        assert self._terms is not None
        if isinstance(given, Mapping) or not isinstance(given, Sequence) or isinstance(given, str):
            raise TypeError(
                f"{name} must be a sparse matrix or a sequence of mappings of term to weight, got "
                f"{type(given).__name__}."
            )
        columns: list[int] = []
        weights: list[float] = []
        bounds = [0]
        for i, one in enumerate(given):
            if not isinstance(one, Mapping):
                raise TypeError(f"{name}[{i}] must be a mapping of term to weight, got {type(one).__name__}.")
            for term, weight in one.items():
                if isinstance(term, bool) or not isinstance(term, (str, int, np.integer)):
                    raise TypeError(
                        f"{name}[{i}] has the term {term!r}: terms must be strings or integers, got "
                        f"{type(term).__name__}."
                    )
                if learn:
                    self._terms.setdefault(term, len(self._terms))
                if term in self._terms:
                    columns.append(self._terms[term])
                    weights.append(float(weight))
            bounds.append(len(columns))
        parts = (np.array(weights, np.float64), np.array(columns, np.int64), np.array(bounds, np.int64))
        return sparse.csr_array(parts, shape=(len(given), len(self._terms)))


class DenseVectors:
    """Single vectors of documents, such as those of an ordinary embedding model, searched exactly.

    Parameters
    ----------
    documents : array_like (n, dimension)
        Scale rows and queries to length 1 for cosine similarity.
    ids : sequence of int or of str, optional
        Default: 0, 1, 2, ...

    Raises
    ------
    TypeError, ValueError
        For another shape, a number that is not finite, or not one id for each document.

    Examples
    --------
    >>> list(DenseVectors([[1.0, 0.0], [0.0, 1.0]], ids=["a", "b"]).search([[0.5, 0.25]], k=1)[0])
    [('a', 0.5)]
    """

    def __init__(self, documents: Any, ids: Sequence[int] | Sequence[str] | None = None) -> None:
        rows = as_array(documents, "documents")
        if rows.ndim != 2 or rows.shape[1] == 0:
            raise ValueError(f"documents must have shape (n, dimension), one row each, got {rows.shape}.")
        vectors = checked_vectors(rows, rows.shape[1], "documents")
        self._ids = _ids_of(ids, len(vectors))
        self._search = ExactSearch(vectors.shape[1])
        self._search.add(np.arange(len(vectors)), vectors)

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self._ids)

    def search(self, queries: Any, k: int = 100, *, threads: int | None = None) -> list[Ranking]:
        """Return the documents of the largest inner product with each query.

        Parameters
        ----------
        queries : array_like (m, dimension)
        k : int
            How many to return at most.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        list of Ranking
            Ties go to the earlier document.
        """
        require_int("k", k, 1)
        asked = checked_vectors(as_array(queries, "queries"), self._search.dimension, "queries")
        if not len(self._ids):
            return [Ranking(self._ids, np.empty(0, np.float32)) for _ in asked]
        found, scores = self._search.search(asked, min(k, len(self._ids)), threads=threads)
        return [Ranking(self._ids[row], own) for row, own in zip(found, scores, strict=True)]


def _ids_of(ids: Any, count: int) -> Ids:
    return np.arange(count) if ids is None else as_ids(ids, count)
