"""What all measuring of a run shares: the store, provenance, failures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .configuration import Experiment, Point
from .raw_store import RawStore, key_of

__all__ = ["ALL", "Failure", "Session", "raw_path"]

#: Instead of an experiment's name: a failure of a collection, in all of them.
ALL = "all"


@dataclass(frozen=True)
class Failure:
    """Something that went wrong; the rest goes on."""

    experiment: str
    collection: str
    system: str
    message: str


@dataclass
class Session:
    """What all measuring of a run shares.

    Parameters
    ----------
    store : RawStore
    cache : Path
        For the systems, see :class:`experiments.systems.base.Material`.
    threads : int
    provenance : dict
        What is noted beside every result: versions, the commit.
    failures, left_out : list of Failure
        Filled while measuring: what went wrong, and which systems a collection has nothing for.
    tell : callable
        Takes a line for whoever waits.
    """

    store: RawStore
    cache: Path
    threads: int
    provenance: dict[str, Any]
    tell: Callable[[str], object]
    failures: list[Failure] = field(default_factory=list)
    left_out: list[Failure] = field(default_factory=list)

    def fail(self, experiment: str, collection: str, system: str, message: str) -> None:
        """Note a failure, and say it at once."""
        self.failures.append(Failure(experiment, collection, system, message))
        self.tell(f"{experiment}, {collection}, {system}: {message}")


def raw_path(
    session: Session, experiment: Experiment, collection: str, content: str, point: Point, seed: int
) -> Path:
    """Return where a point's raw results belong.

    Parameters
    ----------
    session : Session
    experiment : Experiment
    collection : str
        Its name.
    content : str
        Checksum of the collection as it is asked, sampled already.
    point : Point
    seed : int
    """
    together = None
    if experiment.timed:  # times depend on the systems beside which they were measured
        together = [(entry.system, entry.build, entry.queries) for entry in experiment.entries]
    key = key_of(
        system=point.entry.system,
        build=point.entry.build,
        query=point.query,
        seed=seed,
        k=experiment.k,
        content=content,
        threads=session.threads,
        together=together,
    )
    return session.store.path(collection, point.entry.system, key)
