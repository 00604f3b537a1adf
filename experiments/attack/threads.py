"""Threads that search an index while others change it, and notice every answer of no state of it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import FDEConfig, MultiVectors, MuveraIndex

__all__ = ["BACKENDS", "Stress", "query_of", "settings_of", "small_index", "stress", "table"]

DIMENSION = 20

#: What reads the vectors; "all tokens" reads no vectors at all.
BACKENDS = ("all tokens", "exact", "hnsw", "usearch", "int8", "pq", "auto")

#: Documents that are there all the time, in ever new versions; others come and go under higher ids.
STABLE, FIRST_OTHER = 160, 1_000

# Largest share of searches that may miss their document where vectors are not all read.
_MOST_MISSED = 0.01

# What a version adds to the score of its document's query, far below what tells documents apart.
_STEP = 1e-4


@dataclass
class Stress:
    """What came of it.

    Parameters
    ----------
    searches, changes : int
        How many there were.
    missed : int
        Searches of a graph or of codes that did not find their document, as such searches may;
        reading all vectors found it then.
    seconds : float
        How long they took.
    faults : list of str
        Errors, and answers that were right at no moment between the beginning and the end of their search.
    """

    searches: int = 0
    changes: int = 0
    missed: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def settings_of(backend: str) -> dict[str, Any]:
    """Return the settings of :meth:`muvera.MuveraIndex.build` for one of :data:`BACKENDS`."""
    if backend == "all tokens":
        return {"exact_tokens": 10**6}
    return {"backend": backend, "exact_tokens": 0, "pq": {"rescore": 60}}


class _Versions:
    """Which version of each stable document may have been there when."""

    def __init__(self) -> None:
        self.began = [[0.0] for _ in range(STABLE)]
        self.ended: list[list[float]] = [[] for _ in range(STABLE)]  # when the next version was surely there

    def possible(self, document: int, version: int, start: float, stop: float) -> bool:
        began, ended = self.began[document], self.ended[document]
        if not 0 <= version < len(began) or began[version] > stop:
            return False
        return version >= len(ended) or ended[version] >= start


def stress(
    *,
    seconds: float,
    readers: int = 6,
    writers: int = 2,
    folder: Path | None = None,
    seed: int = 0,
    **settings: Any,
) -> Stress:
    """Search an index from some threads while others update, add, delete, rebuild and save.

    Every stable document's query finds it at any moment, and the score says which version was found.

    Parameters
    ----------
    seconds : float
    readers, writers : int
        Threads.
    folder : Path, optional
        Save there, too.
    seed : int
    **settings
        Of :meth:`muvera.MuveraIndex.build`.
    """
    index, bases = small_index(seed, **settings)
    versions, found = _Versions(), Stress()
    approximate = settings.get("backend") in ("hnsw", "usearch", "pq", "auto")
    began = time.perf_counter()
    deadline = began + seconds
    lock = threading.Lock()

    def count(what: str, fault: str | None, missed: bool = False) -> None:
        with lock:
            setattr(found, what, getattr(found, what) + 1)
            found.missed += missed
            if fault is not None and len(found.faults) < 20:
                found.faults.append(fault)

    def reads(number: int) -> None:
        stream = np.random.default_rng([seed, 1, number])
        while time.perf_counter() < deadline and not found.faults:
            missed = False
            try:
                fault, missed = _search(index, bases, versions, approximate, stream)
            except Exception as error:
                fault = f"a search raised {type(error).__name__}: {error}"
            count("searches", fault, missed)

    def writes(number: int) -> None:
        stream = np.random.default_rng([seed, 2, number])
        while time.perf_counter() < deadline and not found.faults:
            fault = None
            try:
                _change(index, bases, versions, stream, number, writers, folder)
            except Exception as error:
                fault = f"a change raised {type(error).__name__}: {error}"
            count("changes", fault)

    threads = [threading.Thread(target=reads, args=(i,), daemon=True) for i in range(readers)]
    threads += [threading.Thread(target=writes, args=(i,), daemon=True) for i in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 120)
        if thread.is_alive():
            found.faults.append("a thread did not come to its end")
    found.seconds = time.perf_counter() - began
    if found.missed > _MOST_MISSED * found.searches + 1:
        found.faults.append(f"{found.missed} of {found.searches} searches missed their document")
    return found


def small_index(seed: int, **settings: Any) -> tuple[MuveraIndex, NDArray[np.float64]]:
    """Return an index of the stable documents, and a direction of each, which its query has, too."""
    bases = np.random.default_rng(seed).standard_normal((STABLE, DIMENSION - 1))
    bases /= np.linalg.norm(bases, axis=1, keepdims=True)
    config = FDEConfig(
        dimension=DIMENSION, num_repetitions=40, num_simhash_projections=3, projection_dimension=8
    )
    documents = _documents(bases, range(STABLE), [0] * STABLE)
    return MuveraIndex.build(documents, config, threads=1, **settings), bases


def _documents(bases: NDArray[np.float64], ids: Any, versions: Any) -> MultiVectors:
    arrays = []
    for i, version in zip(ids, versions, strict=True):
        tokens = np.zeros((2, DIMENSION), np.float32)
        tokens[0, :-1] = 3 * bases[i % STABLE]
        tokens[1, -1] = version * _STEP
        arrays.append(tokens)
    return MultiVectors.from_arrays(arrays, ids=list(ids))


def query_of(bases: NDArray[np.float64], i: int) -> NDArray[np.float32]:
    """Return the query that finds stable document `i`, and tells which version was found."""
    query = np.zeros((2, DIMENSION), np.float32)
    query[0, :-1] = bases[i]
    query[1, -1] = 1
    return query


def _search(
    index: MuveraIndex,
    bases: NDArray[np.float64],
    versions: _Versions,
    approximate: bool,
    stream: np.random.Generator,
) -> tuple[str | None, bool]:
    """Search once, in one of several ways; return what is wrong with the answer, and whether it was missed."""
    i = int(stream.integers(STABLE))
    ways: list[dict[str, Any]] = [
        {},
        {"ef": 60},
        {"filter": range(STABLE)},
        {"filter": lambda name: name < STABLE},
        {"candidates": 2000},
        {"patience": 30},
    ]
    way = {"candidates": 40, "threads": 1, **ways[int(stream.integers(len(ways)))]}
    start = time.perf_counter()
    ranking = index.search(query_of(bases, i), 5, **way)[0]
    missed = approximate and i not in ranking.ids.tolist()
    if missed:
        start = time.perf_counter()
        ranking = index.search(query_of(bases, i), 5, candidates=10**6, threads=1)[0]
    stop = time.perf_counter()
    names = ranking.ids.tolist()
    fault = None
    if len(set(names)) != len(names) or (np.diff(ranking.scores) > 0).any():
        fault = f"search {way} for {i}: {list(ranking)} has an id twice or is out of order"
    elif i not in names:
        fault = f"search {way} for {i} found only {list(ranking)}"
    else:
        version = round((float(ranking.scores[names.index(i)]) - 3) / _STEP)
        if not versions.possible(i, version, start, stop):
            fault = f"search {way} for {i} found its version {version}, of {len(versions.began[i])}"
    return fault, missed


def table(found: dict[str, Stress]) -> str:
    """Return a Markdown table, a row a backend."""
    heads = ("backend", "seconds", "searches", "changes", "missed", "faults")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for backend, each in found.items():
        numbers = f"{each.seconds:.0f} | {each.searches:,} | {each.changes:,} | {each.missed:,} | {len(each.faults):,}"
        lines.append(f"| {backend} | {numbers} |")
    return "\n".join(lines)


def _change(
    index: MuveraIndex,
    bases: NDArray[np.float64],
    versions: _Versions,
    stream: np.random.Generator,
    number: int,
    writers: int,
    folder: Path | None,
) -> None:
    """Change once, in one of several ways; each writer has ids of its own."""
    kind = stream.random()
    if kind < 0.5:  # new versions
        own = np.arange(number, STABLE, writers)
        picked = stream.choice(own, int(stream.integers(1, 6)), replace=False).tolist()
        now = [len(versions.began[i]) for i in picked]
        for i in picked:
            versions.began[i].append(time.perf_counter())
        index.update(_documents(bases, picked, now), threads=1)
        for i in picked:
            versions.ended[i].append(time.perf_counter())
    elif kind < 0.75:  # others come
        first = FIRST_OTHER + number + writers * int(stream.integers(1 << 40))
        ids = [first + writers * j for j in range(int(stream.integers(1, 80)))]
        other = MultiVectors.from_arrays(
            stream.standard_normal((len(ids), 3, DIMENSION)).astype(np.float32) * 0.3, ids=ids
        )
        index.add(other, threads=int(stream.integers(1, 3)))
    elif kind < 0.94:  # others go
        here = [
            name
            for name in index
            if int(name) >= FIRST_OTHER and int(name) % writers == FIRST_OTHER % writers + number
        ]
        index.delete(here[: int(stream.integers(1, 60))])
    elif kind < 0.97:
        index.rebuild(threads=1)
    elif folder is not None:
        index.save(folder)
