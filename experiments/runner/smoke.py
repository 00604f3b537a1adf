"""Small versions of experiments, which run the whole path of each in seconds."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from muvera.index.two_stage_search import MIN_FIT_DOCUMENTS

from ..datasets.collection import Collection
from ..datasets.synthetic import NAMES, synthetic_collection
from ..peers.environments import PEERS, is_made
from ..systems.registry import SYSTEMS
from .configuration import LARGEST, Entry, Experiment

__all__ = ["smoke_collections", "smoke_experiment"]

_One = TypeVar("_One")

# Enough to learn maps from.
_DOCUMENTS = MIN_FIT_DOCUMENTS + 44

# Sizes of a small scaling, and documents of a collection's part.
_SIZES, _PART = (400, 1000), 60

# Learned encoders that are fitted in a second.
_COSTS = {"num_landmarks": 1024, "num_features": 1024}
_SMALL = {"vector_dimension": 256, **_COSTS}

# A tuning of half a minute, which is done for one collection alone.
_TUNING = {"sample": 60, "candidates": 20}


def smoke_collections() -> list[Collection]:
    """Return two tiny collections."""
    return [synthetic_collection(name, documents=_DOCUMENTS) for name in NAMES]


def smoke_experiment(experiment: Experiment, cache: Path) -> Experiment:
    """Return an experiment with the first and the last of everything that it runs through.

    Peers whose environment would have to be made first are left out, since that may take minutes.

    Parameters
    ----------
    experiment : Experiment
    cache : Path
        Where environments of peers are.
    """
    entries: list[Entry] = []
    for _, line in groupby(experiment.entries, key=lambda entry: entry.line):
        for entry in _ends(list(line)):
            if _is_ready(entry, cache):
                queries = tuple(_ends(list(entry.queries)))
                entries.append(replace(entry, build={**entry.build, **_small(entry)}, queries=queries))
    names = {point.name for entry in entries for point in entry.points()}
    comparisons = tuple(
        replace(comparison, what=tuple(name for name in comparison.what if name in names))
        for comparison in experiment.comparisons
        if comparison.to in names
    )
    scaling = experiment.scaling
    if scaling:
        searches = [
            {key: value for key, value in search.items() if key != "most"}
            for search in scaling.get("searches", [{"backend": "exact"}])
        ]
        scaling = {**scaling, "sizes": list(_SIZES), "searches": searches, "queries": 5}
    sizes = (_PART, None) if len(experiment.documents) > 1 else (None,)
    tuned = any(entry.system == "tuned" for entry in entries)
    named = any(name != LARGEST for name in experiment.collections)  # which are not among the tiny ones
    return replace(
        experiment,
        entries=tuple(entries),
        comparisons=comparisons,
        seeds=experiment.seeds[:2],
        documents=sizes,
        collections=NAMES[:1] if tuned or named else experiment.collections,
        scaling=scaling,
    )


def _ends(values: list[_One]) -> list[_One]:
    return values if len(values) < 3 else [values[0], values[-1]]


def _small(entry: Entry) -> dict[str, int]:
    """Return build arguments that make an entry's encoder small."""
    own = {"two_parts": _COSTS, "tuned": _TUNING}
    if entry.system in own:
        return own[entry.system]
    return _SMALL if "learned" in (entry.build.get("preset"), entry.build.get("encoder")) else {}


def _is_ready(entry: Entry, cache: Path) -> bool:
    try:
        system = SYSTEMS[entry.system]
    except ModuleNotFoundError:
        return True  # the run will say what is missing
    library = PEERS.get(getattr(system, "library", ""))
    return system.family != "peer" or (library is not None and is_made(library, cache))
