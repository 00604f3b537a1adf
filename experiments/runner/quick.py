"""Small versions of experiments, which run every step in seconds."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from ..datasets.collection import Collection
from ..datasets.synthetic import NAMES, synthetic_collection
from ..peers.environments import PEERS, is_made
from ..systems.registry import SYSTEMS
from .configuration import Entry, Experiment

_T = TypeVar("_T")

# Number of documents, enough to fit encoders.
_DOCUMENTS = 300


def quick_collections() -> list[Collection]:
    """Return two tiny collections."""
    return [synthetic_collection(name, documents=_DOCUMENTS) for name in NAMES]


def quick_experiment(experiment: Experiment, cache: Path) -> Experiment:
    """Return an experiment with only the first and the last value of every list.

    Peers are skipped unless their environments exist in `cache`, because creating one
    may take minutes.
    """
    entries: list[Entry] = []
    for _, line in groupby(experiment.entries, key=lambda entry: entry.line):
        for entry in filter(lambda entry: _is_ready(entry, cache), _ends(list(line))):
            entries.append(replace(entry, queries=tuple(_ends(list(entry.queries)))))
    names = {point.name for entry in entries for point in entry.points()}
    comparisons = [
        replace(comparison, what=tuple(name for name in comparison.what if name in names))
        for comparison in experiment.comparisons
        if comparison.to in names
    ]
    return replace(
        experiment,
        entries=tuple(entries),
        comparisons=tuple(comparisons),
        seeds=experiment.seeds[:2],
        collections=NAMES[:1] if experiment.collections else (),
    )


def _ends(values: list[_T]) -> list[_T]:
    return values if len(values) < 3 else [values[0], values[-1]]


def _is_ready(entry: Entry, cache: Path) -> bool:
    system = SYSTEMS[entry.system]
    library = PEERS.get(getattr(system, "library", ""))
    return library is None or is_made(library, cache)
