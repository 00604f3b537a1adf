"""Rows and paired differences from raw results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.collection import Collection
from ..runner.configuration import Experiment, Point
from ..runner.raw_store import Raw
from ..runner.session import Session, raw_path
from .exact import ExactAnswers
from .intervals import mean_interval
from .latency import latency
from .metrics import Judge, parse_metric
from .pareto import TimedPoint, speedups

__all__ = ["Part", "Results", "Values", "add_comparisons", "add_rows", "add_speedups"]

#: A point's place in the results: experiment, collection, number of documents, name of the point.
Values = dict[tuple[str, str, int, str], dict[str, NDArray[np.float64]]]

# Exact Chamfer's best that are kept of every query.
_LEAST_TOP = 10


@dataclass(frozen=True)
class Part:
    """An experiment on one collection at one size, without the token vectors.

    Parameters
    ----------
    experiment : Experiment
    collection : str
        Its name.
    document_ids, query_ids : list of str
        Of the documents and queries that were measured.
    tokens : int
        Token vectors of all documents.
    checksum, content : str
        Of the token vectors, and of all that systems are built from.
    """

    experiment: Experiment
    collection: str
    document_ids: list[str]
    query_ids: list[str]
    tokens: int
    checksum: str
    content: str

    @property
    def size(self) -> int:
        """How many documents there are."""
        return len(self.document_ids)

    @classmethod
    def of(cls, experiment: Experiment, collection: Collection) -> Part:
        """Return what is kept of a collection, sampled already."""
        return cls(
            experiment,
            collection.name,
            collection.document_ids,
            collection.query_ids,
            collection.documents.num_tokens,
            collection.checksum,
            collection.content,
        )


@dataclass
class Results:
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
    provenances : dict
        What measured: each distinct provenance of the raw results.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    speedups: list[dict[str, Any]] = field(default_factory=list)
    values: Values = field(default_factory=dict)
    raws: dict[tuple[str, str, int, str, int], Path] = field(default_factory=dict)
    times: dict[tuple[str, str, int, str], tuple[str, NDArray[np.float64]]] = field(default_factory=dict)
    provenances: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def commits(self) -> set[str]:
        """The commits that results were measured at."""
        return {str(one.get("commit")) for one in self.provenances.values()}


def add_rows(results: Results, session: Session, part: Part, collection: Collection) -> None:
    """Compute the metrics of an experiment's raw results on one collection.

    Faults that were noted beside them are added to the session's failures.

    Parameters
    ----------
    results : Results
    session : Session
    part : Part
    collection : Collection
        The part with its token vectors.
    """
    experiment = part.experiment
    judge: Judge | None = None
    for point in experiment.points():
        by_seed: list[dict[str, NDArray[np.float64]]] = []
        for seed in experiment.seeds:
            path = raw_path(session, experiment, part.collection, part.content, point, seed)
            raw = session.store.load(path)
            if raw is None:
                continue  # it has failed, and is among the failures
            if judge is None:
                judge = Judge(experiment.metrics, _exact(part, collection, session), collection.judgements)
            try:
                values = judge.values(raw.ids, raw.fitted_on)
            except ValueError as error:  # what the configuration asks for cannot be computed
                session.fail(experiment.name, part.collection, point.entry.label, f"{point.name}: {error}")
                continue
            by_seed.append(values)
            results.rows.append(_row(part, point, seed, raw, values))
            provenance = raw.facts["measured"]
            results.provenances.setdefault(json.dumps(provenance, sort_keys=True), provenance)
            where = (experiment.name, part.collection, part.size, point.name)
            if experiment.timed and seed == experiment.seeds[0]:
                results.times[where] = (str(raw.facts.get("turns")), raw.seconds)
            results.raws[where[0], where[1], where[2], where[3], seed] = path
            for fault in raw.facts["faults"]:
                session.fail(experiment.name, part.collection, point.entry.label, f"{point.name} {fault}")
        if by_seed:
            results.values[(experiment.name, part.collection, part.size, point.name)] = {
                name: np.mean([values[name] for values in by_seed], axis=0) for name in by_seed[0]
            }


def add_comparisons(results: Results, parts: Sequence[Part]) -> None:
    """Take the differences that the configurations ask for, query by query."""
    for part in parts:
        where = (part.experiment.name, part.collection, part.size)
        for comparison in part.experiment.comparisons:
            base = results.values.get((*where, comparison.to))
            for name in comparison.what:
                other = results.values.get((*where, name))
                if base is None or other is None:
                    continue
                for metric in comparison.metrics:
                    if metric not in base:
                        continue
                    found = mean_interval(other[metric] - base[metric])
                    if found is not None:
                        results.comparisons.append(
                            {
                                "experiment": where[0],
                                "collection": where[1],
                                "metric": metric,
                                "a": name,
                                "b": comparison.to,
                                "difference": found["mean"],
                                "low": found["low"],
                                "high": found["high"],
                                "n": part.size,
                            }
                        )


def add_speedups(results: Results, parts: Sequence[Part]) -> None:
    """Say of each timed experiment by how much the fastest points are faster than others."""
    for part in parts:
        experiment = part.experiment
        measure = next((metric for metric in experiment.metrics if "recall" in metric), None)
        points = []
        for point in experiment.points():
            where = (experiment.name, part.collection, part.size, point.name)
            timed, values = results.times.get(where), results.values.get(where, {})
            if timed is None or measure not in values or np.isnan(timed[1]).any():
                continue
            turns, seconds = timed
            quality = float(values[measure].mean())
            entry = point.entry
            points.append(TimedPoint(point.name, entry.label, entry.system, quality, turns, seconds))
        results.speedups += [
            {
                "experiment": experiment.name,
                "collection": part.collection,
                "n": part.size,
                "measure": measure,
                **one,
            }
            for one in speedups(points)
        ]


def _exact(part: Part, collection: Collection, session: Session) -> ExactAnswers:
    """Return the exact answers, as many at once as the metrics look at."""
    found = ExactAnswers(collection, session.cache)
    found.best(max([_LEAST_TOP, *(parse_metric(metric).exact for metric in part.experiment.metrics)]))
    return found


def _row(
    part: Part, point: Point, seed: int, raw: Raw, values: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    experiment = part.experiment
    build = {**point.entry.build, **raw.facts["index"]}
    if experiment.documents != (None,):
        build["n"] = part.size
    return {
        "experiment": experiment.name,
        "collection": part.collection,
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
        "facts": {name: mean_interval(values) for name, values in raw.query_facts.items()},
        **latency(raw.seconds if experiment.timed else []),
        "build_seconds": round(raw.facts["build_seconds"], 4) if experiment.timed else None,
        "bytes_per_document": round(raw.facts["bytes_per_document"], 1),
        "total_bytes_per_document": round(
            raw.facts["bytes_per_document"] + raw.facts.get("token_bytes_per_document", 0.0), 1
        ),
    }
