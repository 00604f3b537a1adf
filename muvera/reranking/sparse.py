"""SparseVectors: inverted lists of weighted terms, a source of hybrid search."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..data.ranking import Ranking, best_first
from ..data.validation import Ids, as_ids
from ..utils.checks import given, require_int


class SparseVectors:
    """Documents as weighted terms, searched by inner products.

    A learned sparse model gives a document some terms with weights: SPLADE, DeepImpact
    and uniCOIL one weight per term, SLIM several.  The lexical weights of BGE-M3 are of
    this form, too.  COIL has a vector per token, which does not fit here.  The result
    of :meth:`search` is a ranking for :func:`muvera.hybrid_search`.

    The documents are kept in memory as inverted lists, 12 bytes per weight.  The time
    of a query grows with the number of documents that share its terms.

    Parameters
    ----------
    documents : sparse matrix (n, terms), or sequence of mappings or of pairs
        A SciPy matrix in any format; or for each document a mapping of terms to
        weights, such as ``lexical_weights`` of BGE-M3; or its (term, weight) pairs, of
        which the largest weight of a term counts.  Terms are strings or integers.
    ids : sequence of int or of str, optional
        Default: 0, 1, 2, ...

    Raises
    ------
    TypeError, ValueError
        If `documents` are anything else, a weight is not finite, or `ids` are not one
        id per document.

    Examples
    --------
    >>> documents = [{"red": 1.0, "apple": 2.0}, {"green": 1.0}]
    >>> vectors = SparseVectors(documents, ids=["a", "b"])
    >>> list(vectors.search([{"apple": 0.5, "unknown": 9.0}])[0])
    [('a', 1.0)]
    """

    def __init__(self, documents: Any, ids: Iterable[int] | Iterable[str] | None = None) -> None:
        # Columns by term; None if documents are a matrix, whose columns are terms.
        self._columns: dict[Hashable, int] | None = None if sparse.issparse(documents) else {}
        matrix = self._as_matrix(documents, "documents", new_terms=True)
        count, self._terms = matrix.shape
        self._ids: Ids = np.arange(count) if ids is None else as_ids(ids, count)
        self._postings = sparse.csr_array(matrix.T)
        self._postings.sort_indices()

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self._ids)

    def search(self, queries: Any, k: int = 100) -> list[Ranking]:
        """Return the documents with the largest inner product with each query.

        Parameters
        ----------
        queries : sparse matrix (m, terms), or sequence of mappings or of pairs
            In the form of the documents.  Terms that no document has are ignored.
        k : int
            Maximum number of documents for each query.

        Returns
        -------
        list of Ranking
            Best first; ties go to the earlier document.  Documents with an inner
            product of 0, such as those that share no term with a query, are left out.

        Raises
        ------
        TypeError, ValueError
            If `queries` have another form than the documents, or a weight is not
            finite.
        """
        require_int("k", k, 1)
        asked = self._as_matrix(queries, "queries", new_terms=False)
        found = sparse.csr_array(asked @ self._postings)
        found.eliminate_zeros()
        found.sort_indices()
        rankings = []
        for start, stop in zip(found.indptr[:-1], found.indptr[1:], strict=True):
            scores: NDArray[np.float32] = np.asarray(found.data[start:stop], np.float32)
            best = best_first(scores, min(k, len(scores)))
            rankings.append(Ranking(self._ids[found.indices[start:stop][best]], scores[best]))
        return rankings

    def _as_matrix(self, texts: Any, name: str, new_terms: bool) -> Any:
        """Return texts as a CSR matrix, and give unknown terms a column if wanted."""
        if self._columns is None:
            if not sparse.issparse(texts):
                raise TypeError(
                    f"{name} must be a sparse matrix like the documents, got {given(texts)}. Use "
                    "the same vocabulary for both."
                )
            matrix: Any = sparse.csr_array(texts, dtype=np.float64)  # type: ignore[call-overload]
            if not new_terms and matrix.shape[1] != self._terms:
                raise ValueError(
                    f"{name} must have {self._terms} columns like the documents, got {matrix.shape[1]}."
                )
        else:
            matrix = _matrix_of_terms(texts, name, self._columns, new_terms)
        wrong = np.flatnonzero(~np.isfinite(matrix.data))
        if len(wrong):
            row = int(np.searchsorted(matrix.indptr, wrong[0], side="right")) - 1
            raise ValueError(f"{name}[{row}] must have finite weights, got {matrix.data[wrong[0]]}.")
        return matrix


def _matrix_of_terms(texts: Any, name: str, columns: dict[Hashable, int], new_terms: bool) -> Any:
    if not isinstance(texts, Sequence) or isinstance(texts, (str, bytes)):
        raise TypeError(
            f"{name} must be a sparse matrix or a list of mappings of terms to weights, got {given(texts)}."
        )
    places: list[int] = []
    weights: list[float] = []
    bounds = [0]
    for i, text in enumerate(texts):
        for term, weight in _largest_weights(text, f"{name}[{i}]").items():
            if new_terms:
                columns.setdefault(term, len(columns))
            if term in columns:
                places.append(columns[term])
                weights.append(weight)
        bounds.append(len(places))
    arrays = (np.array(weights, np.float64), np.array(places, np.int64), np.array(bounds, np.int64))
    return sparse.csr_array(arrays, shape=(len(texts), len(columns)))


def _largest_weights(text: Any, name: str) -> dict[Hashable, float]:
    """Return a text's terms with their largest weights."""
    pairs = text.items() if isinstance(text, Mapping) else text
    weights: dict[Hashable, float] = {}
    try:
        for term, weight in pairs:
            if isinstance(term, bool) or not isinstance(term, (str, int, np.integer)):
                raise TypeError(f"{name} must have terms that are str or int, got {given(term)}.")
            value = float(weight)
            weights[term] = max(weights.get(term, value), value)
    except (TypeError, ValueError) as error:
        if str(error).startswith(name):
            raise
        raise TypeError(
            f"{name} must be a mapping of terms to weights, or (term, weight) pairs, got {given(text)}."
        ) from None
    return weights
