"""Hybrid search: MuveraIndex combined with BM25 or any other first stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..data.multivectors import MultiVectorsLike, checked_texts
from ..data.ranking import Ranking
from ..reranking.fusion import Method, fuse, require_rankings
from ..utils.checks import as_id_list, require_int
from .muvera_index import MuveraIndex
from .settings import num_candidates

MAXSIM = "maxsim"  # the exact Chamfer scores, among the sources


def hybrid_search(
    index: MuveraIndex,
    queries: MultiVectorsLike,
    rankings: Mapping[str, Sequence[Ranking]],
    k: int = 10,
    *,
    candidates: int | None = None,
    weights: Mapping[str, float] | None = None,
    method: Method = "minmax",
    ids: Iterable[Any] | None = None,
    threads: int | None = None,
) -> list[Ranking]:
    """Return the best candidates of an index and of other first stages.

    Every candidate gets its exact Chamfer similarity.

    Parameters
    ----------
    index : MuveraIndex
        Its vectors propose candidates, and its tokens score all candidates.
    queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
        Each array is one query.
    rankings : mapping of str to sequence of Ranking
        One ranking per query for each other source, such as BM25, sparse vectors, an
        engine, or another index.  For single vectors, use an index of documents with
        one token.  Documents not in `index` are ignored.
    k : int
        Maximum number of documents for each query.
    candidates : int, optional
        Documents that the index's own vectors propose; 0: none.  Default: 100, or `k`
        if that is more.
    weights : mapping of str to float, optional
        Rank by the weighted sum of the sources' scores, including "maxsim".  Default:
        rank by exact Chamfer similarity.
    method : {"minmax", "zscore", "sum", "rrf"}
        How to make scores of different kinds comparable; see :func:`muvera.fuse`.
    ids : collection of ids, optional
        Return only these documents.
    threads : int, optional
        Default: all usable cores.

    Returns
    -------
    list of Ranking
        Scores are Chamfer similarities, or the weighted sums.

    Raises
    ------
    TypeError, ValueError
        For a source named "maxsim" or without one ranking per query, or wrong weights
        or settings.

    Examples
    --------
    >>> import numpy as np
    >>> from muvera import MuveraIndex, Ranking, hybrid_search
    >>> index = MuveraIndex.build([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> words = [Ranking(np.array([1]), np.array([3.2]))]
    >>> weights = {"maxsim": 0.2, "words": 0.8}
    >>> best = hybrid_search(index, [[[1.0, 0.0]]], {"words": words}, weights=weights)
    >>> best[0].ids.tolist()
    [1, 0]
    """
    require_int("k", k, 1)
    count = require_int("candidates", num_candidates(k, candidates), 0)
    require_rankings(rankings)
    if MAXSIM in rankings:
        raise ValueError(f"{MAXSIM!r} is the name of the exact scores. Give the source another name.")
    allowed = None if ids is None else as_id_list(ids)
    texts = checked_texts(queries, "queries", index.config.dimension, "this index")
    proposed: list[Ranking] = []
    if count:
        proposed = index.search(texts, count, candidates=count, ids=allowed, threads=threads)
    for name, source in rankings.items():
        if len(source) != len(texts):
            raise ValueError(f"{name!r} must have one ranking per query, got {len(source)} for {len(texts)}.")
    within = index if allowed is None else {id for id in allowed if id in index}
    proposals: list[list[int | str]] = []
    sources: list[dict[str, Ranking]] = []
    for i in range(len(texts)):
        others = {name: _restricted(source[i], within) for name, source in rankings.items()}
        every = [*proposed[i : i + 1], *others.values()]
        proposals.append([id for ranking in every for id in ranking.ids.tolist()])
        sources.append(others)
    exact = index.rerank(texts, proposals, k if weights is None else None, missing="ignore", threads=threads)
    if weights is None:
        return exact
    return [
        fuse({MAXSIM: ranking, **others}, weights, method, k)
        for ranking, others in zip(exact, sources, strict=True)
    ]


def _restricted(ranking: Ranking, within: MuveraIndex | set[Any]) -> Ranking:
    """Return a ranking that contains only ids of `within`."""
    mask = [id in within for id in ranking.ids.tolist()]
    return ranking if all(mask) else Ranking(ranking.ids[mask], ranking.scores[mask], ranking.exact)
