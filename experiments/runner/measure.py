"""Measure one experiment on one collection.

Build, warm up, search alternately, store.
"""

from __future__ import annotations

import gc
import secrets
import tempfile
import time
from collections.abc import Hashable
from contextlib import ExitStack, suppress
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
from .raw_store import Failure, Raw, Session, load_raw, raw_path, save_raw

# Number of blocks of queries, after each of which the next system runs; queries and
# documents for warming up.
_BLOCKS, _WARMING_QUERIES, _WARMING_DOCUMENTS = 4, 3, 8


@dataclass
class _Built:
    """A built system, the points to measure with their paths, and answers by point."""

    entry: Entry
    system: System
    facts: dict[str, Any]
    points: list[tuple[Point, Path]]
    answers: dict[str, list[Answers]] = field(default_factory=dict)
    failed: bool = False


def measure(session: Session, experiment: Experiment, part: Collection, seed: int) -> None:
    """Measure all points of an experiment that have no results yet.

    Failures are added to the session under their system's label; the other systems
    continue.

    Parameters
    ----------
    session : Session
        The run that gets the raw results.
    experiment : Experiment
        Systems and points to measure.
    part : Collection
        The collection with the experiment's queries.
    seed : int
        Seed of every random choice of the systems.
    """
    content = part.content
    work: list[tuple[Entry, list[tuple[Point, Path]]]] = []
    for entry in experiment.entries:
        points = [(p, raw_path(session, experiment, part.name, content, p, seed)) for p in entry.points()]
        missing = [(point, path) for point, path in points if load_raw(path) is None]
        if missing:
            work.append((entry, missing))
    if experiment.timed and work and len(work) < len(experiment.entries):
        session.tell(
            f"{experiment.name}, {part.name}: some systems were measured before, so times are not compared "
            "with theirs; give another --out to measure all together."
        )
    shared: dict[Hashable, Any] = {}
    for group in [work] if experiment.timed else [[row] for row in work]:
        _Group(session, experiment, part, seed, shared).measure(group)


@dataclass
class _Group:
    """Systems that are measured together."""

    session: Session
    experiment: Experiment
    part: Collection
    seed: int
    shared: dict[Hashable, Any]

    def measure(self, work: list[tuple[Entry, list[tuple[Point, Path]]]]) -> None:
        session, where = self.session, f"{self.experiment.name}, {self.part.name}"
        turns, built = secrets.token_hex(8), list[_Built]()
        with ExitStack() as stack:
            for entry, points in work:
                session.tell(f"{where}, seed {self.seed}: building {entry.label}")
                try:
                    built.append(self._build(entry, points, stack))
                except NotApplicableError as error:
                    names = (self.experiment.name, self.part.name, entry.label)
                    session.left_out.append(Failure(*names, str(error)))
                    session.tell(f"{where}, {entry.label} is skipped: {error}")
                except Exception as error:  # any exception is a failure of this system alone
                    self._fail(entry, f"{type(error).__name__}: {error}")
            self._search_in_turns(built)
            for one in built:
                for point, path in [] if one.failed else one.points:
                    try:
                        self._store(one, point, path, turns)
                    except ValueError as error:
                        self._fail(one.entry, f"{point.name} {error}")

    def _fail(self, entry: Entry, message: str) -> None:
        self.session.fail(self.experiment.name, self.part.name, entry.label, message)

    def _build(self, entry: Entry, points: list[tuple[Point, Path]], stack: ExitStack) -> _Built:
        """Build a system.

        `stack` closes it, unless the build fails and closes it at once.
        """
        with ExitStack() as own:
            scratch = tempfile.TemporaryDirectory(prefix="muvera-experiment-", ignore_cleanup_errors=True)
            folder = Path(own.enter_context(scratch))
            system = SYSTEMS[entry.system](**entry.build)
            own.callback(_close, system)
            cache, threads = self.session.cache.expanduser(), self.session.threads
            material = Material(self.part, folder, cache, self.seed, threads, self.shared)
            system.prepare(material)
            if self.experiment.timed and not system.own_process:
                _warm_up(entry, material)
            gc.collect()
            start = time.perf_counter()
            system.build(material)
            seconds = time.perf_counter() - start if system.build_seconds is None else system.build_seconds
            facts = {"build_seconds": seconds, "bytes_per_document": float(system.bytes_per_document())}
            stack.push(own.pop_all())
            return _Built(entry, system, facts, points)

    def _search_in_turns(self, built: list[_Built]) -> None:
        """Collect answers block by block; each block begins with another point."""
        work = [(one, point) for one in built for point, _ in one.points]
        positions = np.arange(len(self.part.queries))
        if self.experiment.timed:
            for one, point in work:
                self._search(one, point, positions[:_WARMING_QUERIES])
                one.answers.clear()
        blocks = np.array_split(positions, min(_BLOCKS, len(positions)) if self.experiment.timed else 1)
        for turn, block in enumerate(blocks):
            first = turn * max(1, len(work) // len(blocks)) % max(1, len(work))
            for one, point in [*work[first:], *work[:first]]:
                self._search(one, point, block)

    def _search(self, one: _Built, point: Point, block: NDArray[np.int64]) -> None:
        if one.failed:
            return
        try:
            answers = one.system.search(self.part.queries[block], self._k, **point.query)
            one.answers.setdefault(point.name, []).append(answers)
        except Exception as error:  # any exception is a failure of this system alone
            one.failed = True
            self._fail(one.entry, f"{type(error).__name__}: {error}")

    @property
    def _k(self) -> int:
        return min(self.experiment.k, len(self.part.document_ids))

    def _store(self, one: _Built, point: Point, path: Path, turns: str) -> None:
        """Check a point's answers and store them.

        Raise ValueError for invalid rankings.
        """
        answers = _joined(one.answers[point.name])
        documents, queries = self.part.documents, self.part.queries
        require_answers(answers, len(queries), self._k, len(documents))
        faults = [None if one.entry.allow_fewer else too_few(answers, len(documents))]
        if self.experiment.timed and one.system.chamfer and point.query.get("rerank", True):
            faults.append(score_fault(answers, chamfer_of(answers.ids, queries, documents)))
        reads_tokens = one.system.reads_tokens(**point.query)
        facts = {
            **one.facts,
            "turns": turns,
            "token_bytes_per_document": one.system.token_bytes_per_document() if reads_tokens else 0.0,
            "system": one.entry.system,
            "point": point.name,
            "faults": [fault for fault in faults if fault is not None],
            "measured": self.session.provenance,
        }
        raw = Raw(
            np.asarray(answers.ids, np.int64),
            np.asarray(answers.scores, np.float32),
            np.asarray(answers.seconds, np.float64),
            facts,
        )
        save_raw(path, raw)


def _close(system: System) -> None:
    with suppress(Exception):  # a system that failed may fail again
        system.close()


def _warm_up(entry: Entry, material: Material) -> None:
    """Build the same system from a few documents.

    The timed build then does not compile or load kernels.
    """
    with suppress(Exception):  # the build itself will report it
        system = SYSTEMS[entry.system](**entry.build)
        few = material.collection.with_documents(_WARMING_DOCUMENTS)
        system.build(replace(material, collection=few, shared={}))
        system.close()


def _joined(blocks: list[Answers]) -> Answers:
    ids, scores, seconds = (
        np.concatenate([np.asarray(getattr(block, name)) for block in blocks])
        for name in ("ids", "scores", "seconds")
    )
    return Answers(ids, scores, seconds)
