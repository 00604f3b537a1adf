"""Metrics of what a system returned, one value a query, computed by ir-measures.

"10-recall@50" is the share of exact Chamfer's ten best among the first 50; all other names are
ir-measures' (nDCG@10, R@100, RR@10, ...) and need judgements.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ir_measures
import numpy as np
from numpy.typing import NDArray

__all__ = ["Judge", "Metric", "parse_metric"]

_AGAINST_EXACT = re.compile(r"(\d+)-recall@(\d+)")


@dataclass(frozen=True)
class Metric:
    """A metric's name, taken apart.

    Parameters
    ----------
    name : str
    measure : str
        What ir-measures calls it.
    exact : int
        How many of exact Chamfer's best count as relevant; 0: the judgements count.
    cutoff : int
        How many documents of a ranking it looks at.
    """

    name: str
    measure: str
    exact: int
    cutoff: int


def parse_metric(name: str) -> Metric:
    """Take a metric's name apart.

    Examples
    --------
    >>> parse_metric("10-recall@50")
    Metric(name='10-recall@50', measure='R@50', exact=10, cutoff=50)
    >>> parse_metric("nDCG@10").exact
    0

    Raises
    ------
    ValueError
        For a name that is neither of the two kinds.
    """
    against_exact = _AGAINST_EXACT.fullmatch(name)
    if against_exact:
        exact, cutoff = (int(number) for number in against_exact.groups())
        if min(exact, cutoff) < 1:
            raise ValueError(f"{name}: both numbers must be at least 1.")
        return Metric(name, f"R@{cutoff}", exact, cutoff)
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
    top : int64 (n_queries, m)
        Exact Chamfer's best, m at least what the metrics ask for or all documents.
    judgements : sequence of dict, optional
        For each query the grades of documents by position; an empty one where there are none.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        top: NDArray[np.int64],
        judgements: Sequence[dict[int, int]] | None = None,
    ) -> None:
        self.metrics = [parse_metric(name) for name in metrics]
        self.queries = len(top)
        self._evaluators: dict[int, tuple[Any, dict[str, str], NDArray[np.bool_]]] = {}
        for exact in sorted({metric.exact for metric in self.metrics}):
            if exact == 0 and judgements is None:
                continue
            relevant = (
                [dict.fromkeys(row[:exact].tolist(), 1) for row in top] if exact else list(judgements or ())
            )
            judged = {
                str(i): {str(p): int(grade) for p, grade in row.items()}
                for i, row in enumerate(relevant)
                if row
            }
            names = {
                str(ir_measures.parse_measure(metric.measure)): metric.name
                for metric in self.metrics
                if metric.exact == exact
            }
            evaluator = ir_measures.evaluator([ir_measures.parse_measure(name) for name in names], judged)
            counts = np.array([str(i) in judged for i in range(self.queries)])
            self._evaluators[exact] = (evaluator, names, counts)

    def values(self, ids: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Return each metric's value for every query.

        Parameters
        ----------
        ids : int64 (n_queries, k)
            Positions of documents, best first; -1 where there are fewer.

        Returns
        -------
        dict of float64 (n_queries,)
            NaN where a query has no judgement; a metric that needs judgements is missing where the
            collection has none.
        """
        # The ranks are the scores: a measure must not order ties anew.
        run = {
            str(i): {str(p): float(-rank) for rank, p in enumerate(row) if p >= 0}
            for i, row in enumerate(ids.tolist())
        }
        run = {query: ranking for query, ranking in run.items() if ranking}
        found: dict[str, NDArray[np.float64]] = {}
        for evaluator, names, counts in self._evaluators.values():
            for name in names.values():
                found[name] = np.where(counts, 0.0, np.nan)
            for one in evaluator.iter_calc(run):
                found[names[str(one.measure)]][int(one.query_id)] = one.value
        return found
