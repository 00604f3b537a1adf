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
from ..runner.raw_store import Raw, Session, raw_path
from .metrics import ExactAnswers, Judge, parse_metric
from .statistics import latency, mean_interval

__all__ = ["Part", "Results", "add_comparisons", "add_rows"]

#: Experiment, collection, number of documents, name of the point.
Key = tuple[str, str, int, str]

# Minimum number of exact Chamfer's best documents to compute.
_LEAST_TOP = 10


@dataclass(frozen=True)
class Part:
    """An experiment on one collection at one size, without the token vectors."""

    experiment: Experiment
    collection: str
    document_ids: list[str]
    query_ids: list[str]
    #: Checksums of the token vectors, and of all data that systems are built from.
    checksum: str
    content: str

    @property
    def size(self) -> int:
        """Number of documents."""
        return len(self.document_ids)

    @classmethod
    def of(cls, experiment: Experiment, collection: Collection) -> Part:
        """Describe a collection after sampling."""
        return cls(
            experiment,
            collection.name,
            collection.document_ids,
            collection.query_ids,
            collection.checksum,
            collection.content,
        )


@dataclass
class Results:
    """Results so far; rows and comparisons are those of ``summary.json``."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    #: Each point's metrics for every query, averaged over seeds.
    values: dict[Key, dict[str, NDArray[np.float64]]] = field(default_factory=dict)
    #: Paths of each row's raw results, by the same key and the seed.
    raws: dict[tuple[str, str, int, str, int], Path] = field(default_factory=dict)
    #: Id of the group of systems that a timed point was measured with, and its queries' seconds.
    times: dict[Key, tuple[str, NDArray[np.float64]]] = field(default_factory=dict)
    #: Each distinct provenance of the raw results.
    provenances: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def commits(self) -> set[str]:
        """The commits that results were measured at."""
        return {str(one.get("commit")) for one in self.provenances.values()}


def add_rows(results: Results, session: Session, part: Part, collection: Collection) -> None:
    """Compute the metrics of a part's raw results, and add recorded faults to the session's failures.

    `collection` is the part with its token vectors.
    """
    experiment = part.experiment
    exact = ExactAnswers(collection, session.cache)
    judge = Judge(experiment.metrics, exact, collection.judgements)
    for point in experiment.points():
        key = (experiment.name, part.collection, part.size, point.name)
        by_seed: list[dict[str, NDArray[np.float64]]] = []
        for seed in experiment.seeds:
            path = raw_path(session, experiment, part.collection, part.content, point, seed)
            raw = session.store.load(path)
            if raw is None:
                continue  # the system failed and is in the list of failures
            # All exact answers that any metric needs, computed once.
            exact.best(max([_LEAST_TOP, *(parse_metric(name).exact for name in experiment.metrics)]))
            try:
                values = judge.values(raw.ids, raw.fitted_on)
            except ValueError as error:  # the configuration's metrics do not fit its k
                session.fail(experiment.name, part.collection, point.entry.label, f"{point.name}: {error}")
                continue
            by_seed.append(values)
            results.rows.append(_row(part, point, seed, raw, values))
            provenance = raw.facts["measured"]
            results.provenances.setdefault(json.dumps(provenance, sort_keys=True), provenance)
            if experiment.timed and seed == experiment.seeds[0]:
                results.times[key] = (str(raw.facts.get("turns")), raw.seconds)
            results.raws[experiment.name, part.collection, part.size, point.name, seed] = path
            for fault in raw.facts["faults"]:
                session.fail(experiment.name, part.collection, point.entry.label, f"{point.name} {fault}")
        if by_seed:
            results.values[key] = {
                name: np.mean([values[name] for values in by_seed], axis=0) for name in by_seed[0]
            }


def add_comparisons(results: Results, parts: Sequence[Part]) -> None:
    """Compute the paired differences listed in the configurations."""
    for part in parts:
        where = (part.experiment.name, part.collection, part.size)
        for comparison in part.experiment.comparisons:
            base = results.values.get((*where, comparison.to), {})
            for name in comparison.what:
                other = results.values.get((*where, name), {})
                for metric in comparison.metrics:
                    if metric not in base or metric not in other:
                        continue
                    difference = mean_interval(other[metric] - base[metric])
                    if difference is not None:
                        results.comparisons.append(
                            {
                                "experiment": where[0],
                                "collection": where[1],
                                "metric": metric,
                                "a": name,
                                "b": comparison.to,
                                "difference": difference["mean"],
                                "low": difference["low"],
                                "high": difference["high"],
                                "n": part.size,
                            }
                        )


def _row(
    part: Part, point: Point, seed: int, raw: Raw, values: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    experiment, facts = part.experiment, raw.facts
    return {
        "experiment": experiment.name,
        "collection": part.collection,
        "system": point.entry.system,
        "family": facts["family"],
        "label": point.entry.label,
        "point": point.name,
        "series": point.entry.series,
        "build": point.entry.build,
        "index": facts["index"],
        "query": point.query,
        "n": None if experiment.documents == (None,) else part.size,
        "seed": seed,
        "metrics": {
            metric: mean_interval(values[metric]) if metric in values else None
            for metric in experiment.metrics
        },
        "facts": {name: mean_interval(values) for name, values in raw.query_facts.items()},
        **latency(raw.seconds if experiment.timed else []),
        "build_seconds": round(facts["build_seconds"], 4) if experiment.timed else None,
        "bytes_per_document": round(facts["bytes_per_document"], 1),
        "total_bytes_per_document": round(
            facts["bytes_per_document"] + facts.get("token_bytes_per_document", 0.0), 1
        ),
    }
