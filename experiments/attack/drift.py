"""An index that is changed at random for a long time, compared with plain arithmetic on what it should hold."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import FDEConfig, MultiVectors, MuveraIndex

__all__ = ["Drift", "change_at_random", "drift_table"]

DIMENSION = 12

#: So many documents are there at most; deletions become more likely towards it.
_MOST = 400

#: Scores are sums of a few products in float32.
_TOLERANCE = 1e-4


@dataclass
class Drift:
    """What came of it.

    Parameters
    ----------
    changes, searches : int
        How many there were.
    seconds : float
        How long they took.
    faults : list of str
        Answers that differ from the arithmetic.
    """

    changes: int = 0
    searches: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def change_at_random(seconds: float, seed: int = 0, **settings: Any) -> Drift:
    """Add, update, delete, rebuild, save and load at random, and compare the answers after every change.

    All documents but one are candidates, so that vectors are searched, and at most one may be missing.

    Parameters
    ----------
    seconds : float
    seed : int
    **settings
        Of :meth:`muvera.MuveraIndex.build`.
    """
    stream = np.random.default_rng(seed)
    config = FDEConfig(
        dimension=DIMENSION, num_repetitions=3, num_simhash_projections=2, projection_dimension=DIMENSION
    )
    index = MuveraIndex(config, **settings)
    held: dict[int, NDArray[np.float32]] = {}
    found, began = Drift(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        while time.perf_counter() - began < seconds and not found.faults:
            index = _change(index, held, stream, Path(folder) / "index")
            found.changes += 1
            for _ in range(3):
                fault = _compare(index, held, stream)
                found.searches += 1
                if fault is not None:
                    found.faults.append(f"after {found.changes} changes: {fault}")
    found.seconds = time.perf_counter() - began
    return found


def _change(
    index: MuveraIndex, held: dict[int, NDArray[np.float32]], stream: np.random.Generator, folder: Path
) -> MuveraIndex:
    kind = stream.random()
    ids = list(held)
    if ids and kind < 0.25 + 0.3 * len(ids) / _MOST:
        gone = stream.choice(ids, int(stream.integers(1, min(len(ids), 30) + 1)), replace=False).tolist()
        index.delete(gone)
        for one in gone:
            del held[one]
    elif kind < 0.9:
        count = int(stream.integers(0, 30))
        changed = stream.choice(ids, min(len(ids), count // 2), replace=False).tolist() if ids else []
        names = list(dict.fromkeys([*changed, *stream.integers(0, 1 << 40, count - len(changed)).tolist()]))
        arrays = [
            stream.normal(size=(int(stream.integers(0, 5)), DIMENSION)).astype(np.float32) for _ in names
        ]
        index.update(MultiVectors.from_arrays(arrays, ids=names, dimension=DIMENSION), threads=1)
        held.update(zip(names, arrays, strict=True))
    elif kind < 0.93:
        index.rebuild(threads=1)
    else:
        index.save(folder, overwrite=True)
        index = MuveraIndex.load(folder, verify_files=True)
    return index


def _compare(
    index: MuveraIndex, held: dict[int, NDArray[np.float32]], stream: np.random.Generator
) -> str | None:
    """Search once; return what is wrong with the answer."""
    if len(index) != len(held) or set(index.ids.tolist()) != set(held):
        return f"the index has {len(index)} documents instead of {len(held)}, or others"
    vectors, filled = index.info().vectors, sum(len(tokens) > 0 for tokens in held.values())
    if vectors is not None and vectors["vectors"] != filled:
        return f"there are {vectors['vectors']} vectors of {filled} documents"
    query = stream.normal(size=(3, DIMENSION)).astype(np.float32)
    among = {one for one in held if stream.random() < 0.5} if stream.random() < 0.3 else set(held)
    expected = {
        one: float((query.astype(np.float64) @ held[one].astype(np.float64).T).max(axis=1).sum())
        for one in among
        if len(held[one])
    }
    way: dict[str, Any] = {} if len(among) == len(held) else {"filter": among}
    ranking = index.search(query, 10, candidates=max(10, len(expected) - 1), threads=1, **way)[0]
    best = sorted(expected.values(), reverse=True)[:11]
    possible = [(best[:i] + best[i + 1 :])[:10] for i in range(len(best))] if len(best) > 10 else [best]
    if not any(
        len(ranking) == len(scores) and np.allclose(ranking.scores, scores, atol=_TOLERANCE)
        for scores in possible
    ):
        return f"scores are {ranking.scores.tolist()} instead of {best}"
    wrong = [
        one
        for one, score in ranking
        if not np.isclose(expected.get(int(one), np.inf), score, atol=_TOLERANCE)
    ]
    return f"documents {wrong} have other scores" if wrong else None


def drift_table(found: dict[str, Drift]) -> str:
    """Return a Markdown table, a row a backend."""
    heads = ("backend", "seconds", "changes", "searches", "wrong answers")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for backend, each in found.items():
        numbers = f"{each.seconds:.0f} | {each.changes:,} | {each.searches:,} | {len(each.faults):,}"
        lines.append(f"| {backend} | {numbers} |")
    return "\n".join(lines)
