"""Inverted lists of weighted terms or of token vectors, sources of hybrid search."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from ..data.multivectors import MultiVectors, MultiVectorsLike, as_multivectors, checked_texts
from ..data.ranking import Ranking, best_first
from ..data.validation import Ids, as_ids
from ..utils.checks import given, require_int

#: Texts as weighted terms: a SciPy matrix, or for each text a mapping of terms to
#: weights or its pairs (term, weight).
WeightedTerms = (
    sparse.spmatrix
    | sparse.sparray
    | Sequence[Mapping[str, float] | Mapping[int, float] | Iterable[tuple[str | int, float]]]
)


class SparseVectors:
    """Documents as weighted terms, searched by inner products.

    A learned sparse model gives a document some terms with weights: SPLADE, DeepImpact
    and uniCOIL one weight per term, SLIM several.  The lexical weights of BGE-M3 are of
    this form, too.  For COIL, which has a vector per token, see :class:`COILVectors`.
    The result of :meth:`search` is a ranking for :func:`muvera.hybrid_search`.

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

    def __init__(self, documents: WeightedTerms, ids: Iterable[int] | Iterable[str] | None = None) -> None:
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

    def search(self, queries: WeightedTerms, k: int = 100) -> list[Ranking]:
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

    def _as_matrix(self, texts: object, name: str, new_terms: bool) -> Any:
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


class COILVectors:
    """Documents as token vectors, each of which is compared with equal terms only.

    COIL (arXiv 2104.07186) matches words exactly, but by vectors that know their
    context.  The score of a document is the sum over query tokens of the largest inner
    product with the document's tokens of the same term; a term that it does not have
    counts 0.  The result of :meth:`search` is a ranking for
    :func:`muvera.hybrid_search`.

    Token vectors are copied, one inverted list per term.  The time of a query grows
    with the number of tokens that share its terms.

    Parameters
    ----------
    documents : MultiVectors, or list of arrays (tokens, dimension)
        Without special tokens, which would match in all documents.
    terms : sequence of sequences of int
        For each document the term of each token, such as its vocabulary id.

    Raises
    ------
    TypeError, ValueError
        If `documents` are not token vectors, or `terms` are not one int per token.

    Examples
    --------
    >>> vectors = COILVectors([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8]]], [[7, 9], [7]])
    >>> list(vectors.search([[[0.0, 1.0]]], [[7]])[0])
    [(1, 0.800000011920929), (0, 0.0)]
    """

    def __init__(self, documents: MultiVectorsLike, terms: Sequence[ArrayLike]) -> None:
        texts = as_multivectors(documents)
        flat = _flat_terms(terms, texts, "terms")
        owners = np.repeat(np.arange(len(texts)), texts.lengths)
        order = np.lexsort((owners, flat))
        self.dimension = texts.dimension
        self._ids = texts.ids
        self._tokens = np.asarray(texts.tokens[order], np.float32)
        self._owners = owners[order]
        self._terms, self._starts = np.unique(flat[order], return_index=True)
        self._stops = np.append(self._starts[1:], len(flat))

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self._ids)

    def search(self, queries: MultiVectorsLike, terms: Sequence[ArrayLike], k: int = 100) -> list[Ranking]:
        """Return the documents that share a term with each query, best first.

        Parameters
        ----------
        queries : MultiVectors, or list of arrays (tokens, dimension)
            Without special tokens, too.
        terms : sequence of sequences of int
            For each query the term of each token.
        k : int
            Maximum number of documents for each query.

        Returns
        -------
        list of Ranking
            Ties go to the earlier document.

        Raises
        ------
        TypeError, ValueError
            As for the class, or if `queries` have another dimension.
        """
        require_int("k", k, 1)
        texts = checked_texts(queries, "queries", self.dimension, "these documents")
        flat = _flat_terms(terms, texts, "terms")
        rankings = []
        for start, stop in zip(texts.offsets[:-1], texts.offsets[1:], strict=True):
            scores: NDArray[np.float32] = np.zeros(len(self), np.float32)
            found = np.zeros(len(self), bool)
            for term, token in zip(flat[start:stop], texts.tokens[start:stop], strict=True):
                rows = self._list_of(int(term))
                if rows.start < rows.stop:
                    products = np.einsum("ij,j->i", self._tokens[rows], np.asarray(token, np.float32))
                    owners = self._owners[rows]
                    firsts = np.flatnonzero(np.diff(owners, prepend=-1))
                    scores[owners[firsts]] += np.maximum.reduceat(products, firsts)
                    found[owners] = True
            best = best_first(np.where(found, scores, -np.inf).astype(np.float32), k)
            rankings.append(Ranking(self._ids[best], scores[best]))
        return rankings

    def _list_of(self, term: int) -> slice:
        """Return the tokens of a term; none for an unknown term."""
        place = int(np.searchsorted(self._terms, term))
        if place == len(self._terms) or self._terms[place] != term:
            return slice(0, 0)
        return slice(int(self._starts[place]), int(self._stops[place]))


def _flat_terms(terms: Sequence[ArrayLike], texts: MultiVectors, name: str) -> NDArray[np.int64]:
    """Return the terms of all tokens, int64 (tokens,)."""
    arrays = [np.asarray(text) for text in terms]
    if [len(array) for array in arrays] != texts.lengths.tolist():
        raise ValueError(f"{name} must have one int for each token of each text. Give the tokens' terms.")
    filled = [array for array in arrays if len(array)]
    if not all(array.dtype.kind in "iu" for array in filled):
        raise TypeError(f"{name} must be integers, such as vocabulary ids. Convert them.")
    return np.concatenate([np.empty(0, np.int64), *filled]).astype(np.int64)


def _matrix_of_terms(texts: object, name: str, columns: dict[Hashable, int], new_terms: bool) -> Any:
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
