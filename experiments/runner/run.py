"""Run experiments: measure missing points, compute metrics, write the run's files."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from filelock import FileLock, Timeout

from muvera.utils.atomic_files import write_json

from ..datasets.collection import Collection
from ..datasets.discovery import DatasetPath
from ..datasets.loading import load_collection
from ..evaluation.summary import Part, summarize
from ..known_names import require_known
from ..report.result_tables import result_tables
from ..report.stored_ids import write_ids
from .configuration import Experiment
from .measure import measure
from .provenance import machine
from .raw_store import ALL, Failure, Session


def run_experiments(
    experiments: Sequence[Experiment], collections: Sequence[DatasetPath | Collection], session: Session
) -> list[Failure]:
    """Run experiments on all collections and write the run's files.

    Finished work is stored under a hash of its inputs and not repeated, so the same
    command continues an interrupted run.

    Parameters
    ----------
    experiments : Sequence[Experiment]
        What to measure.
    collections : Sequence[DatasetPath | Collection]
        Collections, or paths from which they are loaded.
    session : Session
        The run: its folder, its settings, and where failures are recorded.

    Returns
    -------
    list[Failure]
        Failures of collections and systems; everything else was measured.

    Raises
    ------
    RuntimeError
        If another process is writing to the same folder.
    """
    session.out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(session.out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        message = f"Another run is writing to {session.out}. Give another folder with --out."
        raise RuntimeError(message) from error
    with lock:
        return _run(list(experiments), collections, session)


def _run(
    experiments: list[Experiment], collections: Sequence[DatasetPath | Collection], session: Session
) -> list[Failure]:
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    parts = list[Part]()
    names = [source.name for source in collections]
    for experiment in experiments:
        _require_collections(experiment, names, session)
    loaded = _loaded(_wanted(experiments, collections), session)
    work = [
        (experiment, collection)
        for experiment in experiments
        for collection in loaded
        if not experiment.collections or collection.name in experiment.collections
    ]
    for number, (experiment, collection) in enumerate(work, 1):
        session.tell(f"{number} of {len(work)}: {experiment.name}, {collection.name}")
        asked = collection.asked(experiment.queries)
        for seed in experiment.seeds:
            measure(session, experiment, asked, seed)
        parts.append(summarize(session, experiment, asked))
    commits = sorted({str(measured.get("commit")) for measured in session.measured})
    if len(commits) > 1:
        session.tell(f"The run has results of several commits: {', '.join(commits)}.")
    manifest = {
        "run": session.out.name,
        "created": created,
        "machine": machine(),
        "versions": {name: value for name, value in session.provenance.items() if name != "machine"},
        "threads": session.threads,
        "experiments": {experiment.name: experiment.raw for experiment in experiments},
        "collections": {collection.name: _described(collection) for collection in loaded},
        "failures": [vars(failure) for failure in session.failures],
        "left_out": [vars(failure) for failure in session.left_out],
        "quick": session.quick,
        "measured": session.measured,
    }
    write_json(session.out / "manifest.json", manifest)
    write_ids(parts, session.out)
    rows = [row for part in parts for measured in part.points.values() for row in measured.rows]
    # Last, because its existence shows that the run is complete.
    write_json(session.out / "summary.json", {"rows": rows, "tables": result_tables(parts)})
    return session.failures


def _loaded(collections: Sequence[DatasetPath | Collection], session: Session) -> list[Collection]:
    loaded = []
    for source in collections:
        try:
            collection = load_collection(source) if isinstance(source, DatasetPath) else source
        except Exception as error:  # for any exception, the other collections continue
            session.fail(ALL, source.name, "collection", str(error))
            continue
        for problem in collection.problems:
            session.fail(ALL, collection.name, "collection", problem)
        loaded.append(collection)
    return loaded


def _require_collections(experiment: Experiment, known: list[str], session: Session) -> None:
    for name in experiment.collections:
        try:
            require_known(name, known, "collection")
        except ValueError as error:
            session.fail(experiment.name, name, "collection", str(error))


def _wanted(
    experiments: list[Experiment], collections: Sequence[DatasetPath | Collection]
) -> list[DatasetPath | Collection]:
    """Return the collections that experiments name; all if one of them names none.

    A fault of another collection is no failure of these experiments.
    """
    if not all(experiment.collections for experiment in experiments):
        return list(collections)
    names = {name for experiment in experiments for name in experiment.collections}
    return [source for source in collections if source.name in names]


def _described(collection: Collection) -> dict[str, Any]:
    return {
        "documents": len(collection.documents),
        "tokens": collection.documents.num_tokens,
        "queries": len(collection.queries),
        "dimension": collection.documents.dimension,
        "checksum": collection.checksum,
        "judged": collection.judgements is not None,
    }
