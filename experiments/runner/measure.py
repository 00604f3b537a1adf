"""Measuring one experiment on one collection: building, warming up, asking in turns, keeping."""

from __future__ import annotations

import gc
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.collection import Collection
from ..systems.base import Answers, Material, NotApplicableError, System
from ..systems.registry import SYSTEMS
from .configuration import Entry, Experiment, Point
from .faults import chamfer_of, require_answers, score_fault, too_few
from .raw_store import Raw
from .session import Failure, Session, raw_path

__all__ = ["measure"]

# Blocks of queries between which systems take turns, queries that warm a system up, and documents that
# warm its build up.
_BLOCKS, _WARMING, _WARMING_DOCUMENTS = 4, 3, 8


@dataclass
class _Built:
    entry: Entry
    system: System
    folder: Path
    facts: dict[str, Any]
    collected: dict[str, list[Answers]] = field(default_factory=dict)


def measure(session: Session, experiment: Experiment, part: Collection, seed: int) -> None:
    """Measure all points of an experiment that are not there yet.

    Parameters
    ----------
    session : Session
        Takes failures, each with its system's label; the other systems go on.
    experiment : Experiment
    part : Collection
        Sampled to the size and the queries that are asked.
    seed : int
    """
    content = part.content
    work: list[tuple[Entry, list[tuple[Point, Path]]]] = []
    for entry in experiment.entries:
        points = [(p, raw_path(session, experiment, part.name, content, p, seed)) for p in entry.points()]
        missing = [(point, path) for point, path in points if session.store.load(path) is None]
        if missing:
            work.append((entry, missing))
    if experiment.timed and work and len(work) < len(experiment.entries):
        session.tell(
            f"{experiment.name}, {part.name}: some systems were measured before, so times are not compared "
            "with theirs; give another --out to measure all together."
        )
    groups = [work] if experiment.timed else [[one] for one in work]
    shared: dict[Hashable, Any] = {}
    for group in groups:
        if group:
            _measure_group(session, experiment, part, seed, group, shared)


def _measure_group(
    session: Session,
    experiment: Experiment,
    part: Collection,
    seed: int,
    group: list[tuple[Entry, list[tuple[Point, Path]]]],
    shared: dict[Hashable, Any],
) -> None:
    k = min(experiment.k, len(part.document_ids))
    turns = secrets.token_hex(8)
    built: list[_Built] = []
    todo: list[tuple[_Built, Point, Path]] = []

    def fail(entry: Entry, error: BaseException | str) -> None:
        message = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        session.fail(experiment.name, part.name, entry.label, message)

    try:
        for entry, points in group:
            session.tell(f"{experiment.name}, {part.name}, seed {seed}: building {entry.label}")
            try:
                one = _build(session, entry, part, seed, experiment.timed, shared)
            except NotApplicableError as error:
                session.left_out.append(Failure(experiment.name, part.name, entry.label, str(error)))
                session.tell(f"{experiment.name}, {part.name}, {entry.label} is left out: {error}")
                continue
            except Exception as error:  # whatever a system raises is its own failure
                fail(entry, error)
                continue
            built.append(one)
            todo += [(one, point, path) for point, path in points]
        failed = _ask(experiment, part, todo, k, fail)
        for one, point, path in todo:
            if id(one) not in failed:
                try:
                    _keep(session, experiment, part, one, point, path, k, turns, fail)
                except ValueError as error:
                    fail(one.entry, f"{point.name} {error}")
    finally:
        for one in built:
            with suppress(Exception):  # a system that failed may fail again
                one.system.close()
            shutil.rmtree(one.folder, ignore_errors=True)


def _build(
    session: Session,
    entry: Entry,
    part: Collection,
    seed: int,
    warm: bool,
    shared: dict[Hashable, Any],
) -> _Built:
    folder = Path(tempfile.mkdtemp(prefix="muvera-experiment-"))
    try:
        system = SYSTEMS[entry.system](**entry.build)
        material = Material(
            documents=part.documents,
            folder=folder,
            cache=session.cache.expanduser(),
            seed=seed,
            threads=session.threads,
            document_texts=part.document_texts,
            query_texts=part.query_texts,
            document_pooled=part.document_pooled,
            query_pooled=part.query_pooled,
            document_token_ids=part.document_token_ids,
            query_token_ids=part.query_token_ids,
            training_queries=part.training_queries,
            shared=shared,
        )
        try:
            system.prepare(material)
            if warm and not system.own_process:
                _warm_up(entry, material)
            gc.collect()
            start = time.perf_counter()
            system.build(material)
            seconds = time.perf_counter() - start if system.build_seconds is None else system.build_seconds
            facts, size = system.facts(), float(system.bytes_per_document())
        except BaseException:
            with suppress(Exception):
                system.close()
            raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return _Built(
        entry, system, folder, {"build_seconds": seconds, "bytes_per_document": size, "index": facts}
    )


def _warm_up(entry: Entry, material: Material) -> None:
    """Build the same of a few documents, so that no build pays for compiling or loading kernels."""
    some = replace(
        material,
        shared={},
        documents=material.documents[:_WARMING_DOCUMENTS],
        document_texts=None
        if material.document_texts is None
        else material.document_texts[:_WARMING_DOCUMENTS],
        document_pooled=(
            None if material.document_pooled is None else material.document_pooled[:_WARMING_DOCUMENTS]
        ),
        document_token_ids=(
            None if material.document_token_ids is None else material.document_token_ids[:_WARMING_DOCUMENTS]
        ),
    )
    with suppress(Exception):  # what is wrong is told of the build itself
        system = SYSTEMS[entry.system](**entry.build)
        system.build(some)
        system.close()


def _ask(
    experiment: Experiment,
    part: Collection,
    todo: list[tuple[_Built, Point, Path]],
    k: int,
    fail: Callable[[Entry, BaseException | str], None],
) -> set[int]:
    """Collect answers, systems taking turns; return the identities of those that failed."""
    queries = part.queries
    positions = np.arange(len(queries))
    failed: set[int] = set()

    def ask(one: _Built, point: Point, block: NDArray[np.int64], keep: bool) -> None:
        if id(one) in failed:
            return
        try:
            answers = one.system.search(queries[block], k, **point.query)
            if keep:
                one.collected.setdefault(point.name, []).append(answers)
        except Exception as error:  # whatever a system raises is its own failure
            failed.add(id(one))
            fail(one.entry, error)

    blocks = np.array_split(positions, min(_BLOCKS, len(positions)) if experiment.timed else 1)
    if experiment.timed:
        for one, point, _ in todo:
            disagreement = None if id(one) in failed else _disagreement(one, part, point, k)
            if disagreement:
                failed.add(id(one))
                fail(one.entry, f"is not timed, for two ways to the same answer differ: {disagreement}")
            ask(one, point, positions[:_WARMING], keep=False)
    for turn, block in enumerate(blocks):
        first = turn * max(1, len(todo) // len(blocks)) % max(1, len(todo))
        for one, point, _ in [*todo[first:], *todo[:first]]:
            ask(one, point, block, keep=True)
    return failed


def _disagreement(one: _Built, part: Collection, point: Point, k: int) -> str | None:
    try:
        return one.system.disagreement(part.queries, k, **point.query)
    except Exception as error:  # reported as what it is: the ways cannot be compared
        return f"{type(error).__name__}: {error}"


def _keep(
    session: Session,
    experiment: Experiment,
    part: Collection,
    one: _Built,
    point: Point,
    path: Path,
    k: int,
    turns: str,
    fail: Callable[[Entry, BaseException | str], None],
) -> None:
    """Check a point's answers and store them; raise ValueError for those that are no ranking."""
    blocks = one.collected[point.name]
    ids, scores, seconds = (
        np.concatenate([np.asarray(getattr(block, name)) for block in blocks])
        for name in ("ids", "scores", "seconds")
    )
    answers = Answers(
        ids,
        scores,
        seconds,
        {name: np.concatenate([block.facts[name] for block in blocks]) for name in blocks[0].facts},
    )
    documents, queries = part.documents, part.queries
    require_answers(answers, len(queries), k, len(documents))
    faults = []
    short = None if one.entry.allow_fewer else too_few(answers, len(documents))
    if short:
        faults.append(short)
    chamfer = np.empty((0, 0), np.float32)
    if experiment.timed:
        chamfer = chamfer_of(answers.ids, queries, documents)
        if one.system.chamfer and point.query.get("rerank", True):
            wrong = score_fault(answers, chamfer)
            if wrong:
                faults.append(wrong)
    needed = one.system.reads_tokens(**point.query)
    tokens = one.system.token_bytes_per_document() if needed else 0.0
    fitted_on = one.system.fitted_on()
    facts = {
        **one.facts,
        "turns": turns,
        "token_bytes_per_document": tokens,
        "system": one.entry.system,
        "family": one.system.family,
        "point": point.name,
        "faults": faults,
        "measured": session.provenance,
    }
    session.store.save(
        path,
        Raw(
            np.asarray(answers.ids, np.int64),
            np.asarray(answers.scores, np.float32),
            np.asarray(answers.seconds, np.float64),
            chamfer,
            facts,
            np.empty(0, np.int64) if fitted_on is None else fitted_on,
            answers.facts,
        ),
    )
