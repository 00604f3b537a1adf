"""Stored ids: what each query of a run found, from which its scores can be recomputed.

A compressed file of NumPy for each experiment, beside its tables, with the ids up to
the deepest cutoff of a metric, the exact best documents, and the judgements.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from muvera.utils.atomic_files import write_bytes

from ..evaluation.metrics import judge, parse_metric
from ..evaluation.statistics import mean_interval
from ..evaluation.summary import Found, Measured, Part
from ..runner.configuration import Experiment, experiment_of
from .result_tables import quality_tables
from .stored_results import IDS, RESULTS, load_results

# Names of arrays in a file: the collection, the kind of array, and of rankings also the
# point and the seed.  No name contains the separator.
_SEPARATOR, _BEST, _GRADES, _RANKED = "|", "best", "grades", "found"


class Recomputed(NamedTuple):
    """A cell of a stored table, and its text by the stored ids."""

    table: str
    row: str
    column: str
    stored: str
    recomputed: str


def write_ids(parts: Iterable[Part], folder: Path) -> None:
    """Write a file of ids for each experiment of `parts` into ``folder/ids``."""
    by_name: dict[str, dict[str, Found]] = {}
    for part in parts:
        depth = _depth(part.experiment)
        ids = {key: ranked[:, :depth] for key, ranked in part.found.ids.items()}
        by_name.setdefault(part.experiment.name, {})[part.collection] = replace(part.found, ids=ids)
    for name, found in by_name.items():
        write_found(name, found, folder)


def write_found(name: str, found: Mapping[str, Found], folder: Path = RESULTS) -> None:
    """Write the file of an experiment's ids, which are given by collection."""
    arrays: dict[str, Any] = {}
    for collection, own in found.items():
        arrays[_name(collection, _BEST)] = _small(own.exact)
        if own.judgements is not None:
            rows = [
                (query, position, grade)
                for query, grades in enumerate(own.judgements)
                for position, grade in grades.items()
            ]
            arrays[_name(collection, _GRADES)] = _small(np.array(rows, np.int64).reshape(-1, 3))
        for (point, seed), ids in own.ids.items():
            arrays[_name(collection, _RANKED, point, str(seed))] = _small(ids)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    (folder / IDS).mkdir(parents=True, exist_ok=True)
    write_bytes(folder / IDS / f"{name}.npz", stream.getvalue())


def read_ids(name: str, folder: Path = RESULTS) -> dict[str, Found]:
    """Return an experiment's stored ids by collection; nothing if there are none."""
    path = folder / IDS / f"{name}.npz"
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: np.asarray(file[name], np.int64) for name in file.files}
    found: dict[str, Found] = {}
    for name, array in arrays.items():
        collection, kind, *point = name.split(_SEPARATOR)
        own = found.setdefault(collection, Found(arrays[_name(collection, _BEST)]))
        if kind == _RANKED:
            own.ids[point[0], int(point[1])] = array
        elif kind == _GRADES:
            own.judgements = [{} for _ in range(len(own.exact))]
            for query, position, grade in array.tolist():
                own.judgements[query][position] = grade
    return found


def recomputed(name: str, results: Path = RESULTS) -> Iterator[Recomputed]:
    """Yield every stored cell that the ids of an experiment determine.

    Times and bytes are not among them.  A result without ids yields nothing.
    """
    stored, ids = load_results(name, results), read_ids(name, results)
    if not ids or not stored:
        return
    experiment = experiment_of(name, stored["configuration"])
    parts = [_judged(experiment, collection, found) for collection, found in ids.items()]
    tables = {table["title"]: table for table in stored["tables"]}
    for table in quality_tables(parts):
        title = f"{experiment.title}: {table.title}"
        old = tables.get(title, {"header": [], "rows": []})
        keys = sum(heading in ("system", "recall", "difference", "metric") for heading in table.header)
        cells = {
            (*row[:keys], heading): cell
            for row in old["rows"]
            for heading, cell in zip(old["header"][keys:], row[keys:], strict=True)
        }
        for row in table.cells:
            for heading, cell in zip(table.header[keys:], row[keys:], strict=True):
                known = cells.get((*row[:keys], heading), "")
                yield Recomputed(title, ", ".join(row[:keys]), heading, known, cell)


def _judged(experiment: Experiment, collection: str, found: Found) -> Part:
    """Return an experiment's part with the metrics of stored ids, without times."""
    part = Part(experiment, collection)
    for point in experiment.points():
        values = [
            judge(experiment.metrics, found.ids[point.name, seed], found, found.judgements)
            for seed in experiment.seeds
            if (point.name, seed) in found.ids
        ]
        if values:
            label = {"point": point.name, "label": point.entry.label}
            rows = [{**label, "metrics": {name: mean_interval(one[name]) for name in one}} for one in values]
            means = {name: np.mean([one[name] for one in values], axis=0) for name in values[0]}
            part.points[point.name] = Measured(rows, means, None)
    return part


def _depth(experiment: Experiment) -> int:
    """Return the number of ids of a query that the metrics read."""
    if not all("@" in name for name in experiment.metrics):
        return experiment.k
    return max((parse_metric(name).cutoff for name in experiment.metrics), default=0)


def _name(*parts: str) -> str:
    return _SEPARATOR.join(parts)


def _small(array: NDArray[np.int64]) -> NDArray[Any]:
    """Return integers in two bytes, or in four if they do not fit."""
    fits = array.size == 0 or np.abs(array).max() < 1 << 15
    return array.astype(np.int16 if fits else np.int32)
