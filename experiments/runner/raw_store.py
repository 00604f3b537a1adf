"""Raw results: everything that a system returned, stored under a hash of all inputs."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera.utils.atomic_files import write_bytes, write_json

from .configuration import Experiment, Point
from .provenance import machine, provenance

#: Special name: the failure of a collection in all experiments.
ALL = "all"

# Arrays of a file.
_ARRAYS = ("ids", "scores", "seconds")


@dataclass(frozen=True, eq=False)
class Raw:
    """Raw results of one point."""

    #: Positions of documents (n, k), -1 for missing ones, and the system's own scores.
    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    #: Seconds of each query; NaN if not measured.
    seconds: NDArray[np.float64]
    #: Build time, bytes, numbers about the index, faults in sentences, provenance.
    facts: dict[str, Any]


def save_raw(path: Path, raw: Raw) -> None:
    """Write a result: facts first, arrays last, each atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.with_suffix(".json"), raw.facts)
    stream = io.BytesIO()
    np.savez(stream, **{name: getattr(raw, name) for name in _ARRAYS})
    write_bytes(path, stream.getvalue())


def load_raw(path: Path) -> Raw | None:
    """Return a result, or None if it is missing or damaged."""
    try:
        # From memory, because NumPy does not close a file that it refuses.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    return Raw(**arrays, facts=facts)


@dataclass(frozen=True)
class Failure:
    """A failure; the rest of the run continues."""

    experiment: str
    collection: str
    system: str
    message: str


@dataclass
class Session:
    """A run: its folder, its settings, and its failures so far.

    An existing run is continued.
    """

    out: Path
    #: Environments of peers and exact answers.
    cache: Path
    threads: int
    #: Called with a line of progress.
    tell: Callable[[str], object]
    quick: bool = False
    #: Versions, commit and machine, stored beside every result.
    provenance: dict[str, Any] = field(default_factory=lambda: {**provenance(), "machine": machine()})
    failures: list[Failure] = field(default_factory=list)
    #: Systems that need data that the collection does not have.
    left_out: list[Failure] = field(default_factory=list)
    #: Each distinct provenance of the results.
    measured: list[dict[str, Any]] = field(default_factory=list)

    def note_provenance(self, found: dict[str, Any]) -> None:
        """Record the provenance of a result."""
        if found not in self.measured:
            self.measured.append(found)

    def fail(self, experiment: str, collection: str, system: str, message: str) -> None:
        """Record a failure and print it.

        Parameters
        ----------
        experiment : str
            Name of the experiment, or "all".
        collection : str
            Name of the collection.
        system : str
            Label of the system, or "collection" if the collection could not be read.
        message : str
            The error, in one sentence.
        """
        self.failures.append(Failure(experiment, collection, system, message))
        self.tell(f"{experiment}, {collection}, {system}: {message}")


def raw_path(
    session: Session, experiment: Experiment, collection: str, content: str, point: Point, seed: int
) -> Path:
    """Return the path of a point's raw results.

    The file's name is a hash of everything that the results depend on.

    Parameters
    ----------
    session : Session
        The run, with its folder and its number of threads.
    experiment : Experiment
        The point's experiment.  If it is timed, its other systems count, too: times
        depend on the systems that are measured together.
    collection : str
        Name of the collection, and of the folder of its results.
    content : str
        Checksum of the collection.
    point : Point
        A system with build and query arguments.
    seed : int
        Seed of the system.

    Returns
    -------
    Path
        A file in the run's folder, which may not exist yet.
    """
    together = None
    if experiment.timed:  # times depend on the systems that were measured together
        together = [(entry.system, entry.build, entry.queries) for entry in experiment.entries]
    inputs = {
        "system": point.entry.system,
        "build": point.entry.build,
        "query": point.query,
        "seed": seed,
        "k": experiment.k,
        "content": content,
        "threads": session.threads,
        "together": together,
    }
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), default=str)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return session.out / "raw" / collection / f"{point.entry.system}-{key}.npz"
