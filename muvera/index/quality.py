"""Recall of an index's first stage: the share of the exact Chamfer best among its candidates.

A graph may find nearly all of the best vectors while the vectors rank few of the best documents
first.  The share of the best vectors says how good the graph is, and this one how good the search is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FirstStageRecall", "first_stage_recall", "num_measured_queries"]

#: Pseudo-queries, tokens of each (ColBERT's queries have 32), and exact best documents to find.
MAX_QUERIES, WINDOW, K = 64, 32, 10

# Multiplications of exact Chamfer that are spent, some seconds' worth, but at least for so many
# queries; where all tokens are more than this, they are not read for it.
_PRODUCTS, _MIN_QUERIES, _MAX_TOKENS = 5 * 10**10, 16, 20_000_000

#: A first stage that finds less than this share of the exact best is worth a warning.
LOW_RECALL = 0.9


@dataclass(frozen=True)
class FirstStageRecall:
    """Share of the exact Chamfer best that are among the candidates, and how it was measured.

    Parameters
    ----------
    recall : float
        Of the `k` best documents by exact Chamfer, the mean share among the candidates.
    k : int
    candidates : int
        Documents that the vectors propose for each query.
    queries : int
        Queries that were measured.
    pseudo_queries : bool
        Whether they are windows of document tokens, each with its source document left out.
    documents : int
        Documents in the index at that time; among more, the same number of candidates finds less.
    """

    recall: float
    k: int
    candidates: int
    queries: int
    pseudo_queries: bool
    documents: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @property
    def warning(self) -> str | None:
        """A sentence where the recall is low; None elsewhere."""
        if self.recall >= LOW_RECALL:
            return None
        source = "windows of document tokens" if self.pseudo_queries else "queries"
        return (
            f"Only {self.recall:.0%} of the exact {self.k} best documents are among {self.candidates} "
            f"candidates ({self.queries} {source} were measured): rank more candidates, or let diagnose or "
            "tune find an encoder that suits these documents."
        )


def first_stage_recall(
    best: Sequence[NDArray[np.int64]],
    found: Sequence[NDArray[np.int64]],
    sources: NDArray[np.int64] | None,
    k: int,
    candidates: int,
) -> float:
    """Return the mean share of the `k` best documents among the candidates.

    Parameters
    ----------
    best : sequence of int64 (k or k + 1,)
        Rows by exact Chamfer, best first; one more where there are sources.
    found : sequence of int64 (candidates or candidates + 1,)
        Rows by their vectors, best first; one more where there are sources.
    sources : int64 (n_queries,), optional
        Row of the document that each query was cut out of, which is left out of both.
    k, candidates : int
    """
    shares = []
    for query, (exact, proposed) in enumerate(zip(best, found, strict=True)):
        if sources is not None:
            exact, proposed = exact[exact != sources[query]], proposed[proposed != sources[query]]
        shares.append(np.isin(exact[:k], proposed[:candidates]).mean())
    return float(np.mean(shares))


def num_measured_queries(tokens: int, dimension: int) -> int:
    """Return how many pseudo-queries to measure in an index of so many tokens; 0: too many tokens."""
    if tokens > _MAX_TOKENS:
        return 0
    affordable = _PRODUCTS // max(1, tokens * dimension * WINDOW)
    return min(MAX_QUERIES, max(_MIN_QUERIES, affordable))
