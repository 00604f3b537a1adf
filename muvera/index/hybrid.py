"""Hybrid search: MuveraIndex combined with BM25, sparse or dense vectors, or any other first stage."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from ..data.ranking import Ranking, best_first
from ..data.validation import Ids, as_ids
from ..reranking.fusion import Method, fuse
from ..utils.checks import as_id_list, require_int
from .muvera_index import MuveraIndex

__all__ = ["MAXSIM", "SparseVectors", "hybrid_search"]

#: Name of the exact Chamfer scores among the sources of a hybrid search.
MAXSIM = "maxsim"


def hybrid_search(
    index: MuveraIndex,
    queries: Any,
    rankings: Mapping[str, Sequence[Ranking]],
    k: int = 10,
    *,
    candidates: int = 100,
    weights: Mapping[str, float] | None = None,
    method: Method = "minmax",
    ids: Iterable[Any] | None = None,
    threads: int | None = None,
) -> list[Ranking]:
    """Return the best documents among the candidates of an index and of other first stages.

    Every candidate gets its exact Chamfer similarity.

    Parameters
    ----------
    index : MuveraIndex
    queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
    rankings : mapping of str to sequence of Ranking
        One ranking per query for each other source, such as BM25, :class:`SparseVectors`, an engine, or another
        index.  For single vectors, use an index of documents with one token.  Documents not in `index` are ignored.
    k : int
        Number of documents to return, at most.
    candidates : int
        Documents that the index's own vectors propose; 0: none.
    weights : mapping of str to float, optional
        Rank by the weighted sum of the sources' scores, including "maxsim";
        :func:`muvera.reranking.fusion.tune_weights` finds weights.  Default: rank by exact Chamfer similarity.
    method : {"minmax", "zscore", "sum", "rrf"}
        How scores of different kinds are made comparable; see :func:`muvera.fuse`.
    ids : collection of ids, optional
        Return only these documents.
    threads : int, optional

    Returns
    -------
    list of Ranking
        Scores are Chamfer similarities, or the weighted sums.

    Raises
    ------
    ValueError
        For a source named "maxsim", a source without one ranking per query, or weights of unknown sources.

    Examples
    --------
    >>> from muvera import MuveraIndex, hybrid_search
    >>> index = MuveraIndex.build([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> words = SparseVectors([{"red": 1.0}, {"blue": 1.0}]).search([{"blue": 1.0}])
    >>> best = hybrid_search(index, [[[1.0, 0.0]]], {"words": words}, weights={"maxsim": 0.2, "words": 0.8})
    >>> best[0].ids.tolist()
    [1, 0]
    """
    require_int("k", k, 1)
    require_int("candidates", candidates, 0)
    if MAXSIM in rankings:
        raise ValueError(f"{MAXSIM!r} is the name of the exact scores. Give the source another name.")
    allowed = None if ids is None else as_id_list(ids)
    if candidates:
        own = index.search(queries, candidates, candidates=candidates, ids=allowed, threads=threads)
        count = len(own)
    else:
        own, count = [], max(map(len, rankings.values()), default=0)
    for name, source in rankings.items():
        if len(source) != count:
            raise ValueError(f"{name!r} has {len(source)} rankings for {count} queries. Give one per query.")
    within = None if allowed is None else set(allowed)
    proposals, sources = [], []
    for i in range(count):
        others = {
            name: _only(source[i], lambda id: id in index and (within is None or id in within))
            for name, source in rankings.items()
        }
        every = [*own[i : i + 1], *others.values()]
        proposals.append(list(dict.fromkeys(id for ranking in every for id in ranking.ids.tolist())))
        sources.append(others)
    exact = index.rerank(
        queries, proposals, k if weights is None else None, missing="ignore", threads=threads
    )
    if weights is None:
        return exact
    return [
        fuse({MAXSIM: ranking, **others}, weights, method, k)
        for ranking, others in zip(exact, sources, strict=True)
    ]


def _only(ranking: Ranking, wanted: Callable[[Any], bool]) -> Ranking:
    """Return a ranking that contains only allowed ids."""
    mask = [wanted(id) for id in ranking.ids.tolist()]
    return ranking if all(mask) else Ranking(ranking.ids[mask], ranking.scores[mask], ranking.exact)


class SparseVectors:
    """Sparse vectors of documents, such as SPLADE or the lexical weights of BGE-M3.

    The time of a query grows in proportion to the number of documents that share its terms.

    Parameters
    ----------
    documents : sparse matrix (n, terms), or a sequence of mappings of term to weight
        A SciPy matrix in any format; terms of mappings are strings or integers.
    ids : sequence of int or of str, optional
        Default: 0, 1, 2, ...

    Raises
    ------
    TypeError, ValueError
        For anything else, a weight that is not finite, or not one id per document.

    Examples
    --------
    >>> vectors = SparseVectors([{"red": 1.0, "apple": 2.0}, {"green": 1.0}], ids=["a", "b"])
    >>> list(vectors.search([{"apple": 0.5, "unknown": 9.0}])[0])
    [('a', 1.0)]
    """

    def __init__(self, documents: Any, ids: Sequence[int] | Sequence[str] | None = None) -> None:
        self._columns: dict[Hashable, int] | None = None if sparse.issparse(documents) else {}
        matrix = self._as_matrix(documents, "documents", learn=True)
        count = matrix.shape[0]
        self._ids: Ids = np.arange(count) if ids is None else as_ids(ids, count)
        self._postings = sparse.csr_array(matrix.T)
        self._postings.sort_indices()

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self._ids)

    def search(self, queries: Any, k: int = 100) -> list[Ranking]:
        """Return the documents with the largest inner product for each query.

        Parameters
        ----------
        queries : as the documents
            Terms that are in no document are ignored.
        k : int
            Number of documents to return, at most.

        Returns
        -------
        list of Ranking
            Ties go to the earlier document.  Documents with an inner product of 0 are not returned.
        """
        require_int("k", k, 1)
        products = sparse.csr_array(self._as_matrix(queries, "queries", learn=False) @ self._postings)
        products.sort_indices()
        rankings = []
        for start, stop in zip(products.indptr[:-1], products.indptr[1:], strict=True):
            scores = np.asarray(products.data[start:stop], np.float32)
            best = best_first(scores, min(k, len(scores)))
            rankings.append(Ranking(self._ids[products.indices[start:stop][best]], scores[best]))
        return rankings

    def _as_matrix(self, value: Any, name: str, learn: bool) -> Any:
        """Return a sparse float64 matrix (n, terms); `learn`: new terms get new columns."""
        columns = self._columns
        if columns is None:
            if not sparse.issparse(value):
                raise TypeError(
                    f"{name} must be a sparse matrix, as the documents are, got {type(value).__name__}."
                )
            matrix: Any = sparse.csr_array(value, dtype=np.float64)  # type: ignore[call-overload]
            if not learn and matrix.shape[1] != self._postings.shape[0]:
                raise ValueError(
                    f"{name} have {matrix.shape[1]} columns, but these documents have {self._postings.shape[0]} terms."
                )
        else:
            if isinstance(value, (Mapping, str)) or not isinstance(value, Sequence):
                kind = type(value).__name__
                raise TypeError(
                    f"{name} must be a sparse matrix or a sequence of mappings of term to weight, got {kind}."
                )
            weights: list[tuple[float, int, int]] = []
            for i, terms in enumerate(value):
                if not isinstance(terms, Mapping):
                    raise TypeError(
                        f"{name}[{i}] must be a mapping of term to weight, got {type(terms).__name__}."
                    )
                for term, weight in terms.items():
                    if isinstance(term, bool) or not isinstance(term, (str, int, np.integer)):
                        raise TypeError(
                            f"{name}[{i}] has the term {term!r}: terms must be strings or integers."
                        )
                    if learn:
                        columns.setdefault(term, len(columns))
                    if term in columns:
                        weights.append((float(weight), i, columns[term]))
            values, rows, places = np.array(weights, np.float64).reshape(-1, 3).T
            matrix = sparse.csr_array((values, (rows, places)), shape=(len(value), len(columns)))
        wrong = ~np.isfinite(matrix.data)
        if wrong.any():
            row = int(matrix.tocoo().row[wrong][0])
            raise ValueError(f"{name}[{row}] has the weight {matrix.data[wrong][0]}: weights must be finite.")
        return matrix
