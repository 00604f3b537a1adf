"""Rows of a summary from raw results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.collection import Collection
from ..runner.configuration import Experiment, Point
from ..runner.raw_store import Raw, Session, load_raw, raw_path
from .metrics import ExactAnswers, judge, parse_metric
from .statistics import latency, mean_interval


@dataclass(frozen=True)
class Measured:
    """Results of one point."""

    #: Rows of ``summary.json``, one per seed.
    rows: list[dict[str, Any]]
    #: Metrics of every query, averaged over seeds.
    values: dict[str, NDArray[np.float64]]
    #: Raw results of the first seed, for timed experiments.
    raw: Raw | None

    def timed_with(self, other: Measured) -> bool:
        """Return True if both were timed alternately."""
        if self.raw is None or other.raw is None or np.isnan(self.raw.seconds).any():
            return False
        return bool(self.raw.facts.get("turns") == other.raw.facts.get("turns"))


@dataclass(eq=False)
class Found:
    """What the queries of an experiment found in one collection, and what is relevant.

    Documents are positions.
    """

    #: Exact Chamfer's best documents, (n, m), as many as recalls read; none without a
    #: recall.
    exact: NDArray[np.int64]
    judgements: list[dict[int, int]] | None = None
    #: Documents by point and seed, best first, (n, k), -1 for missing ones.
    ids: dict[tuple[str, int], NDArray[np.int64]] = field(default_factory=dict)

    def best(self, count: int) -> NDArray[np.int64]:
        """Return the exact best documents of each query, best first."""
        return self.exact[:, :count]


@dataclass(frozen=True)
class Part:
    """An experiment on one collection: its results by point, without token vectors."""

    experiment: Experiment
    collection: str
    points: dict[str, Measured] = field(default_factory=dict)
    found: Found = field(default_factory=lambda: Found(np.empty((0, 0), np.int64)))


def summarize(session: Session, experiment: Experiment, collection: Collection) -> Part:
    """Compute the metrics of an experiment's raw results.

    Parameters
    ----------
    session : Session
        The run.  Recorded faults are added to its failures.
    experiment : Experiment
        The experiment whose raw results are read.
    collection : Collection
        The collection with the experiment's queries.

    Returns
    -------
    Part
        Results by point, without the points of systems that failed.
    """
    exact = ExactAnswers(collection, session.cache)
    relevant = max((parse_metric(name).exact for name in experiment.metrics), default=0)
    best = exact.best(relevant) if relevant else np.empty((len(collection.queries), 0), np.int64)
    part = Part(experiment, collection.name, found=Found(best, collection.judgements))
    content = collection.content
    for point in experiment.points():
        rows, by_seed, first = [], list[dict[str, NDArray[np.float64]]](), None
        for seed in experiment.seeds:
            raw = load_raw(raw_path(session, experiment, collection.name, content, point, seed))
            if raw is None:
                continue  # the system failed and is in the list of failures
            values = judge(experiment.metrics, raw.ids, exact, collection.judgements)
            by_seed.append(values)
            part.found.ids[point.name, seed] = raw.ids
            rows.append(_row(part, point, seed, raw, values))
            session.note_provenance(raw.facts["measured"])
            if experiment.timed and seed == experiment.seeds[0]:
                first = raw
            for fault in raw.facts["faults"]:
                session.fail(experiment.name, part.collection, point.entry.label, f"{point.name} {fault}")
        if rows:
            means = {name: np.mean([values[name] for values in by_seed], axis=0) for name in by_seed[0]}
            part.points[point.name] = Measured(rows, means, first)
    return part


def _row(
    part: Part, point: Point, seed: int, raw: Raw, values: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    experiment, facts = part.experiment, raw.facts
    return {
        "experiment": experiment.name,
        "collection": part.collection,
        "system": point.entry.system,
        "label": point.entry.label,
        "point": point.name,
        "build": point.entry.build,
        "query": point.query,
        "seed": seed,
        "metrics": {
            metric: mean_interval(values[metric]) if metric in values else None
            for metric in experiment.metrics
        },
        **latency(raw.seconds if experiment.timed else []),
        "build_seconds": round(facts["build_seconds"], 4) if experiment.timed else None,
        "bytes_per_document": round(facts["bytes_per_document"], 1),
        "total_bytes_per_document": round(
            facts["bytes_per_document"] + facts.get("token_bytes_per_document", 0.0), 1
        ),
    }
