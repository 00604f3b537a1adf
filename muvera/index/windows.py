"""Windows of documents as queries, and the exact best documents of each.

Windows stand in for real queries, which an index does not have when it is built.  A window's own document is
never counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.sampling import pseudo_queries
from ..reranking.pruning import RerankOptions

if TYPE_CHECKING:
    from .two_stage_search import IndexContents

__all__ = ["document_windows", "exact_best"]

# Tokens of a window, as in ColBERT's queries.
_WINDOW = 32


def document_windows(
    contents: IndexContents, count: int, rows: NDArray[np.int64] | None = None, seed: int = 0
) -> tuple[MultiVectors, NDArray[np.int64]]:
    """Return up to `count` windows of different documents, and the rows of their documents.

    `rows` are live rows with tokens to choose from, by default all of them.
    """
    stream = np.random.default_rng(seed)
    rows = contents.searchable[0] if rows is None else rows
    picked = np.sort(stream.choice(rows, min(count, len(rows)), replace=False))
    documents = contents.store.rows(picked)
    windows, sources = pseudo_queries(documents, len(documents), _WINDOW, stream)
    return windows, picked[sources]


def exact_best(
    contents: IndexContents,
    queries: MultiVectors,
    sources: NDArray[np.int64] | None,
    k: int,
    threads: int | None = None,
) -> list[NDArray[np.int64]]:
    """Return the rows of the `k` best documents of each query, best first, without those in `sources`."""
    rows, _ = contents.searchable
    more = int(sources is not None)
    rankings = contents.rank(queries, [rows] * len(queries), RerankOptions(min(k + more, len(rows))), threads)
    best = [np.array(contents.ids.rows(ranking.ids.tolist()), np.int64) for ranking in rankings]
    if sources is not None:
        best = [found[found != source] for found, source in zip(best, sources, strict=True)]
    return [found[:k] for found in best]
