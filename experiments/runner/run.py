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

from ..datasets.embedded import DatasetPath, StudyCollection, load_place
from ..evaluation.summary import Part, Study, add_comparisons, add_rows, add_speedups
from ..known_names import require_known
from ..report.stored_results import machine
from ..report.study_tables import study_tables
from .configuration import LARGEST, Experiment
from .measure import ALL, Failure, Session, measure
from .outputs import manifest_of, stamp, write_rankings, write_run
from .raw_store import RawStore, key_of
from .scaling import scaling_rows, scaling_settings

__all__ = ["Options", "run_study"]


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
    quick : bool
        Whether the experiments and collections are small ones, which the manifest says.
    """

    out: Path
    cache: Path
    threads: int
    tell: Callable[[str], object]
    quick: bool = False


def run_study(
    experiments: Sequence[Experiment], collections: Sequence[DatasetPath | StudyCollection], options: Options
) -> list[Failure]:
    """Run experiments, each on all collections, and write the run's files.

    Finished work is kept under a hash of all that it depends on and not done again; a run that was
    interrupted goes on when the same command is given again.

    Parameters
    ----------
    experiments : sequence of Experiment
    collections : sequence of Place or StudyCollection
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
    experiments: list[Experiment], collections: Sequence[DatasetPath | StudyCollection], options: Options
) -> list[Failure]:
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    versions = stamp()
    stamped = {**versions, "machine": machine()}
    session = Session(RawStore(options.out / "raw"), options.cache, options.threads, stamped, options.tell)
    study = Study()
    loaded = _loaded(collections, session)
    parts = [
        part
        for experiment in experiments
        for collection in _of_experiment(experiment, loaded, session)
        for part in _parts(experiment, collection)
    ]
    for number, part in enumerate(parts, 1):
        size = f"{len(part.collection.document_ids):,} documents"
        options.tell(f"{number} of {len(parts)}: {part.experiment.name}, {part.collection.name}, {size}")
        if part.experiment.kind == "scaling":
            _grow(session, study, part)
            continue
        for seed in part.experiment.seeds:
            measure(session, part.experiment, part.collection, seed)
        add_rows(study, session, part)
    add_comparisons(study, parts)
    add_speedups(study, parts)
    manifest = manifest_of(options.out.name, created, experiments, loaded, parts, options.threads, versions)
    manifest["quick"] = options.quick
    manifest["failures"] = [vars(failure) for failure in session.failures]
    manifest["left_out"] = [vars(one) for one in session.left_out]
    manifest["measured"] = list(study.stamps.values())
    if len(study.commits) > 1:
        options.tell(f"Results of several commits stand together: {', '.join(sorted(study.commits))}.")
    write_rankings(options.out, study, parts, session.store)
    write_run(options.out, manifest, study, study_tables(study, parts))
    return session.failures


def _loaded(collections: Sequence[DatasetPath | StudyCollection], session: Session) -> list[StudyCollection]:
    found = []
    for one in collections:
        try:
            collection = load_place(one) if isinstance(one, DatasetPath) else one
        except Exception as error:  # whatever its files raise, the other collections go on
            session.failures.append(Failure(ALL, one.name, "collection", str(error)))
            session.tell(f"{one.name}: {error}")
            continue
        for problem in collection.problems:
            session.failures.append(Failure(ALL, collection.name, "collection", problem))
            session.tell(f"{collection.name}: {problem}")
        found.append(collection)
    return found


def _of_experiment(
    experiment: Experiment, loaded: list[StudyCollection], session: Session
) -> list[StudyCollection]:
    if experiment.collections == (LARGEST,):
        return sorted(loaded, key=lambda one: -len(one.document_ids))[:1]
    for name in experiment.collections:
        try:
            require_known(name, [one.name for one in loaded], "collection")
        except ValueError as error:
            session.failures.append(Failure(experiment.name, name, "collection", str(error)))
            session.tell(f"{experiment.name}: {error}")
    return [one for one in loaded if not experiment.collections or one.name in experiment.collections]


def _parts(experiment: Experiment, collection: StudyCollection) -> list[Part]:
    asked = collection.asked(experiment.queries)
    total = len(collection.document_ids)
    sizes = [None if size is None or size >= total else size for size in experiment.documents]
    sampled = [asked.sampled(size) for size in dict.fromkeys(sizes)]
    return [Part(experiment, part, part.content) for part in sampled]


def _grow(session: Session, study: Study, part: Part) -> None:
    """Measure a scaling or take what was measured before."""
    experiment, seed = part.experiment, part.experiment.seeds[0]
    settings = scaling_settings(experiment.scaling)
    key = key_of(scaling=vars(settings), content=part.content, seed=seed, threads=session.threads)
    path = session.store.folder / part.collection.name / f"scaling-{key}.json"
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        session.tell(f"{experiment.name}, {part.collection.name}: growing")
        try:
            rows, failures = scaling_rows(settings, part.collection, experiment.name, seed, session.threads)
        except Exception as error:  # whatever an encoder raises; what other experiments found is kept
            rows, failures = [], [("encoder", f"{type(error).__name__}: {error}")]
        for backend, message in failures:
            session.failures.append(Failure(experiment.name, part.collection.name, backend, message))
            session.tell(f"{experiment.name}, {part.collection.name}, {backend}: {message}")
        if not failures:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, rows)
    study.rows += [{**row, "experiment": experiment.name} for row in rows]
