"""Metrics of rankings, one value per query.

"10-recall@50" is the share of exact Chamfer's top 10 among the first 50.  All other
names are those of ir-measures (nDCG@10, R@100, RR@10, ...) and need judgements.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import ir_measures
import numpy as np
from numpy.typing import NDArray

from muvera import top_k
from muvera.utils.atomic_files import write_bytes

from ..datasets.collection import Collection

_RECALL_NAME = re.compile(r"(\d+)-recall@(\d+)")

# Minimum number of best documents to compute and store.
_LEAST = 10


class Metric(NamedTuple):
    """The numbers in a metric's name."""

    #: Number of exact Chamfer's best documents that are relevant; 0: use judgements
    #: instead.
    exact: int
    #: Number of documents of a ranking to use.
    cutoff: int


def parse_metric(name: str) -> Metric:
    """Parse a metric's name.

    Examples
    --------
    >>> parse_metric("10-recall@50"), parse_metric("nDCG@10")
    (Metric(exact=10, cutoff=50), Metric(exact=0, cutoff=10))
    """
    match = _RECALL_NAME.fullmatch(name)
    if match:
        metric = Metric(int(match[1]), int(match[2]))
        if min(metric) < 1:
            raise ValueError(f"{name}: both numbers must be at least 1.")
        return metric
    try:
        measure = ir_measures.parse_measure(name)
    except (ValueError, NameError) as error:
        raise ValueError(
            f"There is no metric {name!r}. Use a recall such as 10-recall@50 against exact Chamfer, or a "
            "name of ir-measures such as nDCG@10 against judgements."
        ) from error
    return Metric(0, int(measure.params.get("cutoff", 1)))


def recall(ids: NDArray[np.int64], best: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each query's `best` documents among its `ids`.

    Negative ids are ignored.

    Examples
    --------
    >>> recall(np.array([[1, 5, 0], [3, 4, -1]]), np.array([[0, 1], [2, 3]]))
    array([1. , 0.5])
    """
    share: NDArray[np.float64] = (best[:, :, np.newaxis] == ids[:, np.newaxis, :]).any(axis=2).mean(axis=1)
    return share


class Best(Protocol):
    """The exact best documents of each query."""

    def best(self, count: int) -> NDArray[np.int64]:
        """Return the positions of at most `count` documents, best first."""
        ...


class ExactAnswers:
    """Exact Chamfer's answers to a collection's queries, cached in a folder.

    The files are named by the collection's checksum.
    """

    def __init__(self, collection: Collection, cache: Path) -> None:
        self._collection, self._cache = collection, cache.expanduser()

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self._collection.documents)

    def best(self, count: int) -> NDArray[np.int64]:
        """Return the positions of the best documents, best first.

        The result is int64 (n_queries, min(count, documents)).

        The earlier of two documents with equal scores comes first, so shorter answers
        are prefixes of longer ones.
        """
        for path in self._cache.glob(f"top*-{self._collection.checksum}.npy"):
            if int(path.name.removeprefix("top").partition("-")[0]) >= min(count, self.documents):
                return np.asarray(np.load(path, allow_pickle=False)[:, :count], np.int64)
        stored = min(max(count, _LEAST), self.documents)
        rankings = top_k(self._collection.queries, self._collection.documents, stored)
        best = np.stack([ranking.ids for ranking in rankings]).astype(np.int64)
        self._cache.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        np.save(stream, best)
        # Another run may read the file at any time, so it is written atomically.
        write_bytes(self._cache / f"top{stored}-{self._collection.checksum}.npy", stream.getvalue())
        return best[:, :count]


def judge(
    metrics: Sequence[str],
    ids: NDArray[np.int64],
    exact: Best,
    judgements: Sequence[dict[int, int]] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return each metric's value for every query.

    Parameters
    ----------
    metrics : Sequence[str]
        Names such as 10-recall@50, for the recall of exact Chamfer's best documents, or
        names of ir-measures such as nDCG@10.
    ids : NDArray[np.int64]
        Positions of documents (n, k), best first, filled up with -1.
    exact : Best
        The best documents by exact Chamfer, for recalls.
    judgements : Sequence[dict[int, int]] or None
        Grades of documents by position, for each of the n queries.  Without them,
        metrics that need them are omitted.

    Returns
    -------
    dict[str, NDArray[np.float64]]
        Values (n,) by metric, higher is better; NaN for a query without judgements.
    """
    parsed = {name: parse_metric(name) for name in metrics}
    recalls = {name: metric for name, metric in parsed.items() if metric.exact}
    best = exact.best(max(metric.exact for metric in recalls.values())) if recalls else ids
    values = {
        name: recall(ids[:, : metric.cutoff], best[:, : metric.exact]) for name, metric in recalls.items()
    }
    measures: dict[Any, str] = {
        ir_measures.parse_measure(name): name for name in parsed if name not in recalls
    }
    if judgements is None or not measures:
        return values
    relevant = {
        str(query): {str(position): int(grade) for position, grade in grades.items()}
        for query, grades in enumerate(judgements)
        if grades
    }
    # Use ranks as scores, so that ir-measures does not reorder ties.
    run = {
        str(query): {str(p): float(-rank) for rank, p in enumerate(row) if p >= 0}
        for query, row in enumerate(ids.tolist())
        if max(row) >= 0
    }
    for name in measures.values():
        values[name] = np.array([0.0 if grades else np.nan for grades in judgements])
    for one in ir_measures.iter_calc(list(measures), relevant, run):
        values[measures[one.measure]][int(one.query_id)] = one.value
    return values
