"""Running experiments: what is missing is measured, everything is judged, and the files are written."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from muvera.utils.atomic_files import write_json

from ..datasets.collection import Collection
from ..datasets.discovery import DatasetPath
from ..datasets.loading import load_collection
from ..evaluation.summary import Part, Results, add_comparisons, add_rows
from ..known_names import require_known
from ..report.result_tables import result_tables
from .configuration import LARGEST, Experiment
from .measure import measure
from .outputs import manifest_of, write_rankings, write_run
from .provenance import machine, provenance
from .raw_store import RawStore, key_of
from .scaling import scaling_rows, scaling_settings
from .session import ALL, Failure, Session

__all__ = ["Options", "run_experiments"]


@dataclass(frozen=True)
class Options:
    """How to run.

    Parameters
    ----------
    out : Path
        Folder of the run; one that is there is gone on with.
    cache : Path
        Exact answers, environments of peers.
    threads : int
    tell : callable
        Takes a line for whoever waits.
    smoke : bool
        Whether the experiments and collections are small ones, which the manifest says.
    """

    out: Path
    cache: Path
    threads: int
    tell: Callable[[str], object]
    smoke: bool = False


def run_experiments(
    experiments: Sequence[Experiment], collections: Sequence[DatasetPath | Collection], options: Options
) -> list[Failure]:
    """Run experiments, each on all collections, and write the run's files.

    Finished work is kept under a hash of all that it depends on and not done again; a run that was
    interrupted goes on when the same command is given again.

    Parameters
    ----------
    experiments : sequence of Experiment
    collections : sequence of DatasetPath or Collection
    options : Options

    Returns
    -------
    list of Failure
        Everything that failed, also written to the manifest.

    Raises
    ------
    RuntimeError
        Where another process is writing to the same folder.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(options.out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RuntimeError(
            f"Another run is writing to {options.out}. Give another folder with --out."
        ) from error
    with lock:
        return _run(list(experiments), collections, options)


def _run(
    experiments: list[Experiment], collections: Sequence[DatasetPath | Collection], options: Options
) -> list[Failure]:
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    versions = provenance()
    measured_by = {**versions, "machine": machine()}
    session = Session(
        RawStore(options.out / "raw"), options.cache, options.threads, measured_by, options.tell
    )
    results, parts = Results(), []
    loaded = _loaded(collections, session)
    work = [
        (experiment, collection, size)
        for experiment in experiments
        for collection in _of_experiment(experiment, loaded, session)
        for size in _sizes(experiment, collection)
    ]
    for number, (experiment, collection, size) in enumerate(work, 1):
        options.tell(f"{number} of {len(work)}: {experiment.name}, {collection.name}, {size:,} documents")
        asked = collection
        if experiment.training_queries:
            asked = asked.without_training_queries(experiment.training_queries)
        asked = asked.asked(experiment.queries).sampled(size)
        part = Part.of(experiment, asked)
        parts.append(part)
        if experiment.kind == "scaling":
            _scale(session, results, part, asked)
            continue
        for seed in experiment.seeds:
            measure(session, experiment, asked, seed)
        add_rows(results, session, part, asked)
    add_comparisons(results, parts)
    manifest = manifest_of(options.out.name, created, experiments, loaded, parts, options.threads, versions)
    manifest["quick"] = options.smoke
    manifest["failures"] = [vars(failure) for failure in session.failures]
    manifest["left_out"] = [vars(one) for one in session.left_out]
    manifest["measured"] = list(results.provenances.values())
    if len(results.commits) > 1:
        options.tell(f"Results of several commits stand together: {', '.join(sorted(results.commits))}.")
    write_rankings(options.out, results, parts, session.store)
    write_run(options.out, manifest, results, result_tables(results, parts))
    return session.failures


def _loaded(collections: Sequence[DatasetPath | Collection], session: Session) -> list[Collection]:
    found = []
    for one in collections:
        try:
            collection = load_collection(one) if isinstance(one, DatasetPath) else one
        except Exception as error:  # whatever its files raise, the other collections go on
            session.fail(ALL, one.name, "collection", str(error))
            continue
        for problem in collection.problems:
            session.fail(ALL, collection.name, "collection", problem)
        found.append(collection)
    return found


def _of_experiment(experiment: Experiment, loaded: list[Collection], session: Session) -> list[Collection]:
    if experiment.collections == (LARGEST,):
        return sorted(loaded, key=lambda one: -len(one.document_ids))[:1]
    for name in experiment.collections:
        try:
            require_known(name, [one.name for one in loaded], "collection")
        except ValueError as error:
            session.fail(experiment.name, name, "collection", str(error))
    return [one for one in loaded if not experiment.collections or one.name in experiment.collections]


def _sizes(experiment: Experiment, collection: Collection) -> list[int]:
    total = len(collection.document_ids)
    return list(dict.fromkeys(total if size is None else min(size, total) for size in experiment.documents))


def _scale(session: Session, results: Results, part: Part, collection: Collection) -> None:
    """Measure a scaling or take what was measured before."""
    experiment, seed = part.experiment, part.experiment.seeds[0]
    settings = scaling_settings(experiment.scaling)
    key = key_of(scaling=vars(settings), content=part.content, seed=seed, threads=session.threads)
    path = session.store.folder / part.collection / f"scaling-{key}.json"
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        try:
            rows, failures = scaling_rows(settings, collection, experiment.name, seed, session.threads)
        except Exception as error:  # whatever an encoder raises; what other experiments found is kept
            rows, failures = [], [("encoder", f"{type(error).__name__}: {error}")]
        for backend, message in failures:
            session.fail(experiment.name, part.collection, backend, message)
        if not failures:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, rows)
    results.rows += [{**row, "experiment": experiment.name} for row in rows]
