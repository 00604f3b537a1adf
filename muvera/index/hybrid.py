"""Hybrid search: documents that several first stages found, ranked exactly or by fused scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..data.ranking import Ranking
from ..reranking.fusion import Method, fuse
from ..utils.checks import as_id_list, require_int
from .muvera_index import MuveraIndex

__all__ = ["MAXSIM", "hybrid_search"]

#: The source whose scores are exact Chamfer similarities of all that any source found.
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
    """Return the best of what an index and other first stages found.

    Exact Chamfer similarity is computed for every document that any of them found.

    Parameters
    ----------
    index : MuveraIndex
    queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
    rankings : mapping of str to sequence of Ranking
        Of each other source, one ranking a query, such as those of BM25, of
        :class:`muvera.SparseVectors` or of an engine.  Documents that the index does not have are ignored.
    k : int
        How many to return at most.
    candidates : int
        Documents that the index's own vectors propose; 0: none.
    weights : mapping of str to float, optional
        Order by the weighted sum of the sources' scores, that of "maxsim" among them;
        :func:`muvera.tune_weights` finds them.  Default: order by exact Chamfer similarity alone.
    method : {"minmax", "zscore", "sum", "rrf"}
        How scores of different kinds are made comparable, see :func:`muvera.fuse`.
    ids : collection of ids, optional
        Search only among these documents.
    threads : int, optional
        Default: all usable cores.

    Returns
    -------
    list of Ranking
        Scores are Chamfer similarities, or the weighted sums.

    Raises
    ------
    ValueError
        For a source that is named "maxsim", a source without one ranking for each query, or weights of other
        sources.

    Examples
    --------
    >>> from muvera import MuveraIndex, SparseVectors, hybrid_search
    >>> index = MuveraIndex.build([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> words = SparseVectors([{"red": 1.0}, {"blue": 1.0}]).search([{"blue": 1.0}])
    >>> found = hybrid_search(index, [[[1.0, 0.0]]], {"words": words}, weights={"maxsim": 0.2, "words": 0.8})
    >>> found[0].ids.tolist()
    [1, 0]
    """
    require_int("k", k, 1)
    require_int("candidates", candidates, 0)
    if MAXSIM in rankings:
        raise ValueError(f"{MAXSIM!r} is the name of the exact scores. Give the source another one.")
    allowed = None if ids is None else as_id_list(ids)
    found: dict[str, Sequence[Ranking]] = dict(rankings)
    if candidates:
        # The index's own candidates have exact scores already; they are ranked anew among the others.
        own = index.search(queries, candidates, candidates=candidates, ids=allowed, threads=threads)
        count = len(own)
    else:
        own, count = [], max(map(len, found.values()), default=0)
    for name, one in found.items():
        if len(one) != count:
            raise ValueError(f"{name!r} has {len(one)} rankings for {count} queries. Give one for each.")
    kept = _kept_by(allowed, index)
    parts = [{name: _within(one[i], kept) for name, one in found.items()} for i in range(count)]
    proposed = []
    for i, part in enumerate(parts):
        every = [*own[i : i + 1], *part.values()]
        proposed.append(list(dict.fromkeys(name for ranking in every for name in ranking.ids.tolist())))
    exact = index.rerank(queries, proposed, k if weights is None else None, missing="ignore", threads=threads)
    if weights is None:
        return exact
    return [
        fuse({MAXSIM: ranking, **part}, weights, method, k)
        for ranking, part in zip(exact, parts, strict=True)
    ]


def _kept_by(allowed: Any, index: MuveraIndex) -> Any:
    """Return the function that keeps an id that is in the index and within the filter."""
    if allowed is None:
        return lambda name: name in index
    within = set(allowed)
    return lambda name: name in within and name in index


def _within(ranking: Ranking, kept: Any) -> Ranking:
    mask = [bool(kept(name)) for name in ranking.ids.tolist()]
    return ranking if all(mask) else Ranking(ranking.ids[mask], ranking.scores[mask], ranking.exact)
