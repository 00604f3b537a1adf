"""From raw results to rows, paired differences and tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.collections import exact_top
from ..datasets.embedded import StudyCollection
from ..runner.configuration import Experiment, Point
from ..runner.latency import latency
from ..runner.measure import Failure, Session, raw_path
from ..runner.raw_store import Raw
from .intervals import mean_interval
from .metrics import Judge, parse_metric
from .pareto import TimedPoint, speedups

__all__ = ["Part", "Study", "Values", "add_comparisons", "add_rows", "add_speedups"]

#: A point's place in a study: experiment, collection, number of documents, name of the point.
Values = dict[tuple[str, str, int, str], dict[str, NDArray[np.float64]]]

# Exact Chamfer's best that are kept of every query.
_LEAST_TOP = 10


@dataclass(frozen=True)
class Part:
    """An experiment on one collection at one size."""

    experiment: Experiment
    collection: StudyCollection
    content: str


@dataclass
class Study:
    """Results so far.

    Parameters
    ----------
    rows, comparisons, speedups : list of dict
        As ``summary.json`` has them.
    values : dict
        For each point the metrics' values of every query, averaged over seeds.
    raws : dict
        Where each row's raw results are, by the same key and the seed.
    times : dict
        For each timed point the turns that it was measured in, which are those of all systems that were
        measured together, and the seconds of every query.
    stamps : dict
        What measured: each distinct stamp of the raw results.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    speedups: list[dict[str, Any]] = field(default_factory=list)
    values: Values = field(default_factory=dict)
    raws: dict[tuple[str, str, int, str, int], Path] = field(default_factory=dict)
    times: dict[tuple[str, str, int, str], tuple[str, NDArray[np.float64]]] = field(default_factory=dict)
    stamps: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def commits(self) -> set[str]:
        """The commits that results were measured at."""
        return {str(stamp.get("commit")) for stamp in self.stamps.values()}


def add_rows(study: Study, session: Session, part: Part) -> None:
    """Compute the metrics of an experiment's raw results on one collection.

    Faults that were noted beside them are added to the session's failures.
    """
    experiment, collection = part.experiment, part.collection
    judge: Judge | None = None
    size = len(collection.document_ids)
    for point in experiment.points():
        by_seed: list[dict[str, NDArray[np.float64]]] = []
        for seed in experiment.seeds:
            path = raw_path(session, experiment, collection, part.content, point, seed)
            raw = session.store.load(path)
            if raw is None:
                continue  # it has failed, and is among the failures
            if judge is None:
                judge = Judge(
                    experiment.metrics, _top(experiment, collection, session), collection.judgements
                )
            values = judge.values(raw.ids)
            by_seed.append(values)
            study.rows.append(_row(part, point, seed, raw, values))
            stamp = raw.facts["measured"]
            study.stamps.setdefault(json.dumps(stamp, sort_keys=True), stamp)
            if experiment.timed and seed == experiment.seeds[0]:
                key = (experiment.name, collection.name, size, point.name)
                study.times[key] = (str(raw.facts.get("turns")), raw.seconds)
            study.raws[(experiment.name, collection.name, size, point.name, seed)] = path
            for fault in raw.facts["faults"]:
                session.failures.append(
                    Failure(experiment.name, collection.name, point.entry.label, f"{point.name} {fault}")
                )
        if by_seed:
            study.values[(experiment.name, collection.name, size, point.name)] = {
                name: np.mean([values[name] for values in by_seed], axis=0) for name in by_seed[0]
            }


def add_comparisons(study: Study, parts: Sequence[Part]) -> None:
    """Take the differences that the configurations ask for, query by query."""
    for part in parts:
        size = len(part.collection.document_ids)
        where = (part.experiment.name, part.collection.name, size)
        for comparison in part.experiment.comparisons:
            base = study.values.get((*where, comparison.to))
            for name in comparison.what:
                other = study.values.get((*where, name))
                if base is None or other is None:
                    continue
                for metric in comparison.metrics:
                    if metric not in base:
                        continue
                    found = mean_interval(other[metric] - base[metric])
                    if found is not None:
                        study.comparisons.append(
                            {
                                "experiment": where[0],
                                "collection": where[1],
                                "metric": metric,
                                "a": name,
                                "b": comparison.to,
                                "difference": found["mean"],
                                "low": found["low"],
                                "high": found["high"],
                                "n": size,
                            }
                        )


def add_speedups(study: Study, parts: Sequence[Part]) -> None:
    """Say of each timed experiment by how much the fastest points are faster than others."""
    for part in parts:
        experiment, size = part.experiment, len(part.collection.document_ids)
        measure = next((metric for metric in experiment.metrics if "recall" in metric), None)
        where = (experiment.name, part.collection.name, size)
        points = []
        for point in experiment.points():
            timed, values = study.times.get((*where, point.name)), study.values.get((*where, point.name), {})
            if timed is None or measure not in values or np.isnan(timed[1]).any():
                continue
            turns, seconds = timed
            quality = float(values[measure].mean())
            entry = point.entry
            points.append(TimedPoint(point.name, entry.label, entry.system, quality, turns, seconds))
        study.speedups += [
            {"experiment": where[0], "collection": where[1], "n": size, "measure": measure, **one}
            for one in speedups(points)
        ]


def _top(experiment: Experiment, collection: StudyCollection, session: Session) -> NDArray[np.int64]:
    wanted = [parse_metric(metric).exact for metric in experiment.metrics]
    count = min(max([_LEAST_TOP, *wanted]), len(collection.document_ids))
    return exact_top(collection.tokens, count, session.cache)


def _row(
    part: Part, point: Point, seed: int, raw: Raw, values: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    experiment = part.experiment
    build = {**point.entry.build, **raw.facts["index"]}
    if experiment.documents != (None,):
        build["n"] = len(part.collection.document_ids)
    return {
        "experiment": experiment.name,
        "collection": part.collection.name,
        "system": point.entry.system,
        "family": raw.facts["family"],
        "label": point.entry.label,
        "point": point.name,
        "build": build,
        "query": point.query,
        "seed": seed,
        "metrics": {
            metric: mean_interval(values[metric]) if metric in values else None
            for metric in experiment.metrics
        },
        **latency(raw.seconds if experiment.timed else []),
        "build_seconds": round(raw.facts["build_seconds"], 4) if experiment.timed else None,
        "bytes_per_document": round(raw.facts["bytes_per_document"], 1),
        "total_bytes_per_document": round(
            raw.facts["bytes_per_document"] + raw.facts.get("token_bytes_per_document", 0.0), 1
        ),
    }
