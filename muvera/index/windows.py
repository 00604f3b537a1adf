"""Measure first-stage recall with windows of documents as queries.

Windows replace real queries, which are unknown when an index is built.  A window's own document is never counted.
Documents added after the encoder was fitted are measured separately: if windows of them have a lower recall, the
encoder does not suit them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.sampling import pseudo_queries
from ..reranking.pruning import RerankOptions
from .info import FirstStageRecall

if TYPE_CHECKING:
    from .two_stage_search import IndexContents

__all__ = ["BEST", "CANDIDATES", "MeasuredWindows", "document_windows", "exact_best", "shares_found"]

#: Exact best documents to find, and candidates to find them among.
BEST, CANDIDATES = 10, 100

# Number of tokens in a window, as in ColBERT's queries.
_WINDOW = 32

# Minimum number of windows for a recall of added documents.
_LEAST = 8

# A warning needs a recall of added documents below _ENOUGH.  It must also be lower than the other documents' recall, by
# more than _DROP plus two standard errors.  The standard deviation of windows is at least _DEVIATION.
_ENOUGH, _DROP, _DEVIATION = 0.95, 0.02, 0.05


def document_windows(
    contents: IndexContents, count: int, rows: NDArray[np.int64] | None = None
) -> tuple[MultiVectors, NDArray[np.int64]]:
    """Return windows of up to `count` distinct documents, and the rows of these documents.

    The documents are chosen from `rows`, live rows with tokens; default: all of them.
    """
    stream = np.random.default_rng(0)
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
    among: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """Return the rows of the `k` best documents of each query, best first, without the query's row in `sources`.

    Only the rows in `among` are ranked; default: all.
    """
    rows = contents.searchable[0] if among is None else among
    more = int(sources is not None)
    options = RerankOptions(min(k + more, len(rows)))
    rankings = contents.rank(queries, [rows] * len(queries), options, threads)
    best = [np.array(contents.ids.rows(ranking.ids.tolist()), np.int64) for ranking in rankings]
    return [ranking[:k] for ranking in _without(best, sources)]


def shares_found(
    best: Sequence[NDArray[np.int64]],
    proposed: Sequence[NDArray[np.int64]],
    sources: NDArray[np.int64] | None,
    candidates: int,
) -> NDArray[np.float64]:
    """Return the share of each query's best rows among its first `candidates` proposed ones."""
    pairs = zip(best, _without(proposed, sources), strict=True)
    return np.array([np.isin(exact, candidate_rows[:candidates]).mean() for exact, candidate_rows in pairs])


def _without(
    rows: Sequence[NDArray[np.int64]], sources: NDArray[np.int64] | None
) -> Sequence[NDArray[np.int64]]:
    if sources is None:
        return rows
    return [own[own != source] for own, source in zip(rows, sources, strict=True)]


@dataclass(frozen=True)
class MeasuredWindows:
    """The measured recall of each window: the share of its exact best documents among its candidates."""

    #: Rows of the windows' documents int64 (n,), and the windows' shares float64 (n,).
    rows: NDArray[np.int64]
    shares: NDArray[np.float64]
    #: At the last measurement: the first row that did not exist, and the number of documents.
    stop: int
    documents: int

    def recalls(
        self, live: NDArray[np.int64], fitted: int
    ) -> tuple[FirstStageRecall | None, FirstStageRecall | None]:
        """Return the recall of all documents, and of documents added after the fit, in rows from `fitted` on.

        `live` are the searchable rows, ascending; windows of other documents do not count.
        """
        old, new = self._groups(live, fitted)
        before = int(np.searchsorted(live, fitted))
        sizes = [(some, size) for some, size in ((old, before), (new, len(live) - before)) if len(some)]
        if not sizes:
            return None, None
        total = sum(size * float(some.mean()) for some, size in sizes)
        everything = self._recall(total / sum(size for _, size in sizes), len(old) + len(new))
        return everything, self._recall(float(new.mean()), len(new)) if len(new) >= _LEAST else None

    def _groups(
        self, live: NDArray[np.int64], fitted: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the shares of windows of live documents with rows below `fitted`, and of the others."""
        kept = np.zeros(len(self.rows), np.bool_)
        if len(live):
            kept = live[np.minimum(np.searchsorted(live, self.rows), len(live) - 1)] == self.rows
        return self.shares[kept & (self.rows < fitted)], self.shares[kept & (self.rows >= fitted)]

    def _recall(self, recall: float, queries: int) -> FirstStageRecall:
        return FirstStageRecall(recall, BEST, CANDIDATES, queries, True, self.documents)

    def warning(self, live: NDArray[np.int64], fitted: int) -> str | None:
        """Return a warning if added documents have a clearly lower recall than the others, otherwise None."""
        old, new = self._groups(live, fitted)
        if len(new) < _LEAST or new.mean() >= _ENOUGH:
            return None
        before = float(old.mean()) if len(old) else 1.0
        variance = sum(max(float(some.var()), _DEVIATION**2) / len(some) for some in (old, new) if len(some))
        if new.mean() >= before - _DROP - 2 * math.sqrt(variance):
            return None
        return (
            f"For documents that were added after the encoder was fitted, {CANDIDATES} candidates contain only "
            f"{new.mean():.0%} of the exact {BEST} best; for the others, {before:.0%}. rebuild() fits the encoder "
            "again. For a stream of changing documents use encoder='fde', which hardly depends on a sample."
        )

    def and_more(self, other: MeasuredWindows) -> MeasuredWindows:
        """Return these and later windows together."""
        rows, shares = np.concatenate([self.rows, other.rows]), np.concatenate([self.shares, other.shares])
        return MeasuredWindows(rows, shares, other.stop, other.documents)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**vars(self), "rows": self.rows.tolist(), "shares": self.shares.tolist()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MeasuredWindows:
        """Return the windows of :meth:`to_dict`; raise ValueError or TypeError for damaged ones."""
        rows, shares = np.array(values["rows"], np.int64), np.array(values["shares"], np.float64)
        if rows.ndim != 1 or rows.shape != shares.shape or not ((shares >= 0) & (shares <= 1)).all():
            raise ValueError("Measured windows need one share from 0 to 1 each.")
        return cls(rows, shares, int(values["stop"]), int(values["documents"]))
