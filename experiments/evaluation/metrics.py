"""Metrics of rankings, one value per query.

"10-recall@50" is the share of exact Chamfer's top 10 among the first 50.  All other names are those of ir-measures
(nDCG@10, R@100, RR@10, ...) and need judgements.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from numpy.typing import NDArray

from muvera import top_k
from muvera.utils.atomic_files import write_bytes

from ..datasets.collection import Collection

__all__ = ["ExactAnswers", "Judge", "Metric", "parse_metric", "recall"]

_RECALL_NAME = re.compile(r"(\d+)-recall@(\d+)")


@dataclass(frozen=True)
class Metric:
    """A parsed metric name."""

    name: str
    #: Number of exact Chamfer's best documents that are relevant; 0: use judgements instead.
    exact: int
    #: Number of documents of a ranking to use.
    cutoff: int


def parse_metric(name: str) -> Metric:
    """Parse a metric's name.

    Examples
    --------
    >>> parse_metric("10-recall@50")
    Metric(name='10-recall@50', exact=10, cutoff=50)
    >>> parse_metric("nDCG@10").exact
    0
    """
    match = _RECALL_NAME.fullmatch(name)
    if match:
        exact, cutoff = int(match[1]), int(match[2])
        if min(exact, cutoff) < 1:
            raise ValueError(f"{name}: both numbers must be at least 1.")
        return Metric(name, exact, cutoff)
    try:
        measure = ir_measures.parse_measure(name)
    except (ValueError, NameError) as error:
        raise ValueError(
            f"There is no metric {name!r}. Use a recall such as 10-recall@50 against exact Chamfer, or a name "
            "of ir-measures such as nDCG@10 against judgements."
        ) from error
    return Metric(name, 0, int(measure.params.get("cutoff", 1)))


def recall(ids: NDArray[np.int64], best: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each query's `best` documents among its `ids`; negative ids are ignored.

    Examples
    --------
    >>> recall(np.array([[1, 5, 0], [3, 4, -1]]), np.array([[0, 1], [2, 3]]))
    array([1. , 0.5])
    """
    share: NDArray[np.float64] = (best[:, :, np.newaxis] == ids[:, np.newaxis, :]).any(axis=2).mean(axis=1)
    return share


class ExactAnswers:
    """Exact Chamfer's answers to a collection's queries, cached in a folder under the collection's checksum."""

    def __init__(self, collection: Collection, cache: Path) -> None:
        self._collection, self._cache = collection, cache.expanduser()

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self._collection.documents)

    def best(self, count: int) -> NDArray[np.int64]:
        """Return the positions of the best documents, int64 (n_queries, min(count, documents)).

        The earlier of two documents with equal scores comes first, so shorter answers are prefixes of longer
        ones.
        """
        count = min(count, self.documents)
        for path in self._cache.glob(f"top*-{self._collection.checksum}.npy"):
            if int(path.name.removeprefix("top").partition("-")[0]) >= count:
                return np.asarray(np.load(path, allow_pickle=False)[:, :count], np.int64)
        rankings = top_k(self._collection.queries, self._collection.documents, count)
        best = np.stack([ranking.ids for ranking in rankings]).astype(np.int64)
        self._cache.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        np.save(stream, best)
        # Another run may read the file at any time, so it is written atomically.
        write_bytes(self._cache / f"top{count}-{self._collection.checksum}.npy", stream.getvalue())
        return best


class Judge:
    """Computes metrics of rankings of one collection's queries.

    Judgements are grades of documents by position, for each query; empty for a query without judgements.
    """

    def __init__(
        self, metrics: Sequence[str], exact: ExactAnswers, judgements: Sequence[dict[int, int]] | None = None
    ) -> None:
        self._metrics = [parse_metric(name) for name in metrics]
        self._exact = exact
        judged = [metric for metric in self._metrics if not metric.exact]
        self._judged = _Judgements(judged, judgements) if judged and judgements is not None else None

    def values(self, ids: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Return each metric's value for every query, NaN for a query without judgements.

        `ids` has positions of documents, best first, filled up with -1.  Without judgements, metrics that need them
        are omitted.
        """
        values = {
            metric.name: recall(ids[:, : metric.cutoff], self._exact.best(metric.exact))
            for metric in self._metrics
            if metric.exact
        }
        return values if self._judged is None else values | self._judged.values(ids)


class _Judgements:
    """Metrics against judgements, computed by ir-measures."""

    def __init__(self, metrics: Sequence[Metric], judgements: Sequence[dict[int, int]]) -> None:
        relevant = {
            str(query): {str(position): int(grade) for position, grade in grades.items()}
            for query, grades in enumerate(judgements)
            if grades
        }
        measures = [ir_measures.parse_measure(metric.name) for metric in metrics]
        self._names = {str(one): metric.name for one, metric in zip(measures, metrics, strict=True)}
        self._evaluator: Any = ir_measures.evaluator(measures, relevant)
        self._has_judgement = np.array([str(query) in relevant for query in range(len(judgements))])

    def values(self, ids: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        # Use ranks as scores, so that ir-measures does not reorder ties.
        run = {
            str(query): {str(p): float(-rank) for rank, p in enumerate(row) if p >= 0}
            for query, row in enumerate(ids.tolist())
        }
        values = {name: np.where(self._has_judgement, 0.0, np.nan) for name in self._names.values()}
        for one in self._evaluator.iter_calc({query: ranking for query, ranking in run.items() if ranking}):
            values[self._names[str(one.measure)]][int(one.query_id)] = one.value
        return values
