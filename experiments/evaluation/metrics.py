"""Metrics of what a system returned, one value a query.

"10-recall@50" is the share of exact Chamfer's ten best among the first 50; "10-recall@50 unseen" is the
same among the documents that a system's maps were not learned from.  All other names are ir-measures'
(nDCG@10, R@100, RR@10, ...) and need judgements.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ir_measures
import numpy as np
from numpy.typing import NDArray

from .exact import ExactBest
from .recall import first_unseen, recall

__all__ = ["Judge", "Metric", "parse_metric"]

_AGAINST_EXACT = re.compile(r"(\d+)-recall@(\d+)( unseen)?")


@dataclass(frozen=True)
class Metric:
    """A metric's name, taken apart.

    Parameters
    ----------
    name : str
    measure : str
        What ir-measures calls it, where it needs judgements.
    exact : int
        How many of exact Chamfer's best count as relevant; 0: the judgements count.
    cutoff : int
        How many documents of a ranking it looks at.
    unseen : bool
        Whether documents that maps were learned from are left out of both.
    """

    name: str
    measure: str
    exact: int
    cutoff: int
    unseen: bool = False


def parse_metric(name: str) -> Metric:
    """Take a metric's name apart.

    Examples
    --------
    >>> parse_metric("10-recall@50")
    Metric(name='10-recall@50', measure='R@50', exact=10, cutoff=50, unseen=False)
    >>> parse_metric("nDCG@10").exact
    0

    Raises
    ------
    ValueError
        For a name that is neither of the two kinds.
    """
    against_exact = _AGAINST_EXACT.fullmatch(name)
    if against_exact:
        exact, cutoff = (int(number) for number in against_exact.groups()[:2])
        if min(exact, cutoff) < 1:
            raise ValueError(f"{name}: both numbers must be at least 1.")
        return Metric(name, f"R@{cutoff}", exact, cutoff, against_exact[3] is not None)
    try:
        measure = ir_measures.parse_measure(name)
    except (ValueError, NameError) as error:
        raise ValueError(
            f"There is no metric {name!r}. There are 10-recall@50 and the like against exact Chamfer, and "
            "ir-measures' names, such as nDCG@10, against judgements."
        ) from error
    return Metric(name, name, 0, int(measure.params.get("cutoff", 1)))


class Judge:
    """Judges rankings of one collection's queries.

    Parameters
    ----------
    metrics : sequence of str
    exact : ExactBest
        Exact Chamfer's best documents.
    judgements : sequence of dict, optional
        For each query the grades of documents by position; an empty one where there are none.
    """

    def __init__(
        self, metrics: Sequence[str], exact: ExactBest, judgements: Sequence[dict[int, int]] | None = None
    ) -> None:
        self._metrics = [parse_metric(name) for name in metrics]
        self._exact = exact
        self._judged = None
        if judgements is not None:
            judged = [metric for metric in self._metrics if not metric.exact]
            self._judged = _Judgements(judged, judgements) if judged else None

    def values(
        self, ids: NDArray[np.int64], fitted_on: NDArray[np.int64] | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Return each metric's value for every query.

        Parameters
        ----------
        ids : int64 (n_queries, k)
            Positions of documents, best first; -1 where there are fewer.
        fitted_on : int64 (m,), optional
            Positions of the documents that the system's maps were learned from; default: all.

        Returns
        -------
        dict of float64 (n_queries,)
            NaN where a query has no judgement.  A metric is missing that needs judgements where there are
            none, or unseen documents where maps were learned from all.

        Raises
        ------
        ValueError
            Where the rankings are too short to hold as many unseen documents as a metric looks at.
        """
        found: dict[str, NDArray[np.float64]] = {}
        for metric in self._metrics:
            if metric.unseen:
                if fitted_on is not None and len(fitted_on):
                    found[metric.name] = self._recall_of_unseen(metric, ids, fitted_on)
            elif metric.exact:
                found[metric.name] = recall(ids[:, : metric.cutoff], self._exact.best(metric.exact))
        return found if self._judged is None else found | self._judged.values(ids)

    def _recall_of_unseen(
        self, metric: Metric, ids: NDArray[np.int64], fitted_on: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        unseen = self._exact.documents - len(fitted_on)
        found = first_unseen(ids, fitted_on, metric.cutoff)
        cut_off = (ids >= 0).all(axis=1)  # a shorter ranking holds all that the system found
        if (cut_off & ((found >= 0).sum(axis=1) < min(metric.cutoff, unseen))).any():
            raise ValueError(
                f"{metric.name} looks at {metric.cutoff} documents that maps were not learned from, and a "
                f"ranking of k={ids.shape[1]} holds fewer. Raise k."
            )
        wanted = min(metric.exact, unseen)
        count = 8 * metric.exact
        best = first_unseen(self._exact.best(count), fitted_on, wanted)
        while (best < 0).any():
            count *= 2
            best = first_unseen(self._exact.best(count), fitted_on, wanted)
        return recall(found, best)


class _Judgements:
    """Metrics against judgements, computed by ir-measures."""

    def __init__(self, metrics: Sequence[Metric], judgements: Sequence[dict[int, int]]) -> None:
        relevant = {
            str(i): {str(p): int(grade) for p, grade in row.items()}
            for i, row in enumerate(judgements)
            if row
        }
        measures = [ir_measures.parse_measure(metric.measure) for metric in metrics]
        self._names = {str(one): metric.name for one, metric in zip(measures, metrics, strict=True)}
        self._evaluator: Any = ir_measures.evaluator(measures, relevant)
        self._has_judgement = np.array([str(i) in relevant for i in range(len(judgements))])

    def values(self, ids: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        # The ranks are the scores: a measure must not order ties anew.
        run = {
            str(i): {str(p): float(-rank) for rank, p in enumerate(row) if p >= 0}
            for i, row in enumerate(ids.tolist())
        }
        run = {query: ranking for query, ranking in run.items() if ranking}
        found = {name: np.where(self._has_judgement, 0.0, np.nan) for name in self._names.values()}
        for one in self._evaluator.iter_calc(run):
            found[self._names[str(one.measure)]][int(one.query_id)] = one.value
        return found
