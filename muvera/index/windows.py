"""First-stage recall, measured with windows of documents.

Windows replace real queries, which are unknown when an index is built.  A window's own document is never counted.
Documents added after the encoder was fitted are measured separately.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.sampling import pseudo_queries
from ..utils.stages import stage
from .info import FirstStageRecall

if TYPE_CHECKING:
    from .two_stage_search import IndexContents

#: Exact best documents to find, and candidates to find them among.
BEST, CANDIDATES = 10, 100

#: Maximum number of windows of a measurement, and of tokens to read for each.
MAX_WINDOWS, MAX_TOKENS = 64, 20_000_000

# Number of tokens in a window, as in ColBERT's queries.
_WINDOW = 32

# Added documents are measured once one document in `_PART` is new, with `_PER_DOUBLING` windows times their share.
_PART, _PER_DOUBLING = 16, 128

# Limits of a measurement: multiplications for exact Chamfer similarity (a few seconds), and minimum number of windows.
_PRODUCTS, _MIN_QUERIES = 5 * 10**10, 16

# Minimum number of windows for a recall of added documents.
_MIN_WINDOWS = 8

# A warning needs a recall of added documents below _ENOUGH.  It must also be lower than the other documents' recall, by
# more than _DROP plus two standard errors.  The standard deviation of windows is at least _DEVIATION.
_ENOUGH, _DROP, _DEVIATION = 0.95, 0.02, 0.05

_Rows = NDArray[np.int64]


class FirstStage(NamedTuple):
    """Recall of all documents and of those added after the encoder was fitted; a warning if the second is lower."""

    everything: FirstStageRecall | None = None
    added: FirstStageRecall | None = None
    warning: str | None = None


@dataclass(frozen=True)
class MeasuredWindows:
    """The measured recall of each window: the share of its exact best documents among its candidates."""

    #: Rows of the windows' documents int64 (n,), and the windows' shares float64 (n,).
    rows: _Rows
    shares: NDArray[np.float64]
    #: At the last measurement: the first row that did not exist, and the number of documents.
    stop: int
    documents: int
    #: Number of documents when windows of all documents were last measured.
    size: int

    def first_stage(self, live: _Rows, fitted: int) -> FirstStage:
        """Return the recall of the searchable rows `live`, which are ascending, and of those added after the fit.

        Rows from `fitted` on were added after the fit.  Windows of other documents do not count.
        """
        current = np.isin(self.rows, live)
        old, new = (self.shares[current & after] for after in (self.rows < fitted, self.rows >= fitted))
        before = int(np.searchsorted(live, fitted))
        groups = [
            (shares, size) for shares, size in ((old, before), (new, len(live) - before)) if len(shares)
        ]
        if not groups:
            return FirstStage()
        total = sum(size * float(shares.mean()) for shares, size in groups)
        everything = self._recall(total / sum(size for _, size in groups), len(old) + len(new))
        if len(new) < _MIN_WINDOWS:
            return FirstStage(everything)
        return FirstStage(everything, self._recall(float(new.mean()), len(new)), _warning(old, new))

    def _recall(self, recall: float, queries: int) -> FirstStageRecall:
        return FirstStageRecall(recall, BEST, CANDIDATES, queries, True, self.documents)

    def and_more(self, other: MeasuredWindows) -> MeasuredWindows:
        """Return these windows and later windows of added documents together."""
        rows, shares = np.concatenate([self.rows, other.rows]), np.concatenate([self.shares, other.shares])
        return MeasuredWindows(rows, shares, other.stop, other.documents, self.size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without `size`."""
        values = {**vars(self), "rows": self.rows.tolist(), "shares": self.shares.tolist()}
        del values["size"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any], size: int) -> MeasuredWindows:
        """Return the windows of :meth:`to_dict`; raise ValueError or TypeError for damaged ones."""
        rows, shares = np.array(values["rows"], np.int64), np.array(values["shares"], np.float64)
        if rows.ndim != 1 or rows.shape != shares.shape or not ((shares >= 0) & (shares <= 1)).all():
            raise ValueError(
                f"A measured window must have one share from 0 to 1, got {shares.size} shares of {rows.size} windows."
            )
        return cls(rows, shares, int(values["stop"]), int(values["documents"]), size)


def _warning(old: NDArray[np.float64], new: NDArray[np.float64]) -> str | None:
    """Return a warning if the windows of added documents have clearly lower shares than the others."""
    before = float(old.mean()) if len(old) else 1.0
    groups = [shares for shares in (old, new) if len(shares)]
    variance = sum(max(float(shares.var()), _DEVIATION**2) / len(shares) for shares in groups)
    if new.mean() >= min(_ENOUGH, before - _DROP - 2 * math.sqrt(variance)):
        return None
    return (
        f"For documents that were added after the encoder was fitted, {CANDIDATES} candidates contain only "
        f"{new.mean():.0%} of the exact {BEST} best; for the others, {before:.0%}. In Python, rebuild() "
        "fits the encoder again. For a stream of changing documents use encoder='fde', which hardly depends on a "
        "sample."
    )


def document_windows(
    contents: IndexContents, count: int, rows: _Rows | None = None
) -> tuple[MultiVectors, _Rows]:
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
    sources: _Rows | None,
    k: int,
    threads: int | None = None,
    among: _Rows | None = None,
) -> list[_Rows]:
    """Return the rows of the `k` best documents of each query, best first, without the query's row in `sources`.

    Only the rows in `among` are ranked; default: all.
    """
    rows = contents.searchable[0] if among is None else among
    count = min(k + int(sources is not None), len(rows))
    best = contents.best_rows(queries, [rows] * len(queries), count, threads)
    return [ranking[:k] for ranking in _without([ranking for ranking, _ in best], sources)]


def _without(rows: Sequence[_Rows], sources: _Rows | None) -> Sequence[_Rows]:
    """Return each query's rows without its row in `sources`."""
    if sources is None:
        return rows
    return [own[own != source] for own, source in zip(rows, sources, strict=True)]


def shares_found(
    best: Sequence[_Rows], proposed: Sequence[_Rows], sources: _Rows | None, candidates: int
) -> NDArray[np.float64]:
    """Return the share of each query's best rows among its first `candidates` proposed ones."""
    pairs = zip(best, _without(proposed, sources), strict=True)
    return np.array([np.isin(exact, candidate_rows[:candidates]).mean() for exact, candidate_rows in pairs])


def measure(contents: IndexContents, threads: int | None) -> None:
    """Measure first-stage recall if it is unknown, the size has doubled or halved, or many documents were added."""
    rows, search = contents.searchable[0], contents.candidates
    if search is None or len(rows) <= CANDIDATES + 1:
        return
    earlier = search.windows
    if earlier is None or not len(rows) / 2 <= earlier.size <= 2 * len(rows):
        groups = [
            group for group in np.split(rows, [np.searchsorted(rows, search.fitted_rows)]) if len(group)
        ]
        count, earlier = MAX_WINDOWS // len(groups), None
    else:
        groups = [rows[rows >= earlier.stop]]
        if len(groups[0]) < max(_PART, len(rows) // _PART):
            return
        count = min(MAX_WINDOWS, -(-_PER_DOUBLING * len(groups[0]) // len(rows)))
    windows, sources = zip(*(document_windows(contents, count, group) for group in groups), strict=True)
    later = measure_windows(contents, MultiVectors.concatenate(windows), np.concatenate(sources), threads)
    search.windows = later if earlier is None else earlier.and_more(later)


def measure_windows(
    contents: IndexContents, queries: MultiVectors, sources: _Rows, threads: int | None
) -> MeasuredWindows:
    """Return the recall of windows; a large collection is searched in part, with fewer windows."""
    search, (rows, tokens) = contents.candidates, contents.searchable
    assert search is not None
    among = None
    if tokens > MAX_TOKENS:
        count = int(len(rows) * MAX_TOKENS / tokens)
        some = np.random.default_rng(0).choice(rows, count, replace=False)
        among, tokens = np.union1d(some, sources), MAX_TOKENS
    affordable = max(_MIN_QUERIES, _PRODUCTS // max(1, _WINDOW * tokens * contents.config.dimension))
    kept = np.sort(np.random.default_rng(0).permutation(len(queries))[:affordable])
    queries, sources = queries[kept], sources[kept]
    with stage("measuring recall"):
        best = exact_best(contents, queries, sources, BEST, threads, among)
        proposed = [own for own, _ in search.find(queries, CANDIDATES + 1, among, threads)]
    shares = shares_found(best, proposed, sources, CANDIDATES)
    searched = rows if among is None else among
    return MeasuredWindows(sources, shares, len(contents.store), len(searched), len(rows))


def measure_first_stage(
    contents: IndexContents, queries: MultiVectors, k: int, candidates: int, threads: int | None = None
) -> FirstStageRecall | None:
    """Return the share of the exact best documents among the candidates; None if all tokens are read."""
    count = len(contents.searchable[0])
    if contents.candidates is None or count == 0:
        return None
    best = exact_best(contents, queries, None, k, threads)
    proposed = [own for own, _ in contents.candidates.find(queries, candidates, threads=threads)]
    recall = float(shares_found(best, proposed, None, candidates).mean())
    return FirstStageRecall(recall, k, candidates, len(queries), False, count)
