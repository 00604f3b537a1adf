"""Random changes of an index, alone or beside searches.

Every answer must be that of one state, by plain arithmetic.
"""

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from muvera import FDEConfig, MultiVectors, MuveraIndex, Ranking

CONFIG = FDEConfig.preset(
    "simhash", 12, num_repetitions=3, num_simhash_projections=2, projection_dimension=12
)

#: The parts of documents by id.
State = dict[int, list[np.ndarray]]

#: Documents from which on deletions become as frequent as additions, and documents of
#: an addition.
MANY, MORE = 200, 15


class Changes:
    """An index that writers change and readers search.

    They stop at the deadline or at the first fault.

    A writer has ids of its own.  Its state i can be visible from the moment when the
    change to it began until the next change has returned.  Without readers, the only
    writer searches after each change.
    """

    def __init__(self, folder: Path, readers: int, writers: int, **settings: Any) -> None:
        self.index, self.folder, self.alone = MuveraIndex(CONFIG, **settings), folder, not readers
        self.states: list[list[tuple[float, State]]] = [[(0.0, {})] for _ in range(writers)]
        self.returned: list[list[float]] = [[] for _ in range(writers)]
        self.work = [
            partial(self._change_alone if self.alone else self.change, number=i) for i in range(writers)
        ]
        self.work += [partial(self.search)] * readers
        self.changes, self.searches, self.faults = 0, 0, list[str]()

    def run(self, seconds: float) -> None:
        self.change(np.random.default_rng(0), 0)
        arguments = [(work, number, time.perf_counter() + seconds) for number, work in enumerate(self.work)]
        threads = [threading.Thread(target=self._repeat, args=each, daemon=True) for each in arguments]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + 120)
            if thread.is_alive():
                self.faults.append("a thread did not end")

    def _repeat(self, work: Callable[..., object], number: int, deadline: float) -> None:
        stream = np.random.default_rng([0, number])
        while time.perf_counter() < deadline and not self.faults:
            try:
                work(stream)
            except Exception as error:
                self.faults.append(f"{type(error).__name__}: {error}")

    def _change_alone(self, stream: np.random.Generator, number: int) -> None:
        self.change(stream, number)
        assert set(self.index.ids.tolist()) == set(self.states[number][-1][1]), "wrong documents"
        for _ in range(3):
            self.search(stream)

    def change(self, stream: np.random.Generator, number: int) -> None:
        """Change a writer's documents, rebuild the index, or save it.

        If it saves alone, it also loads the index.
        """
        held, kind = dict(self.states[number][-1][1]), stream.random()
        ids = list(held)
        work: Callable[[], object]
        if ids and kind < 0.25 + 0.3 * len(ids) / MANY:
            gone = stream.choice(ids, int(stream.integers(1, min(len(ids), 30) + 1)), replace=False).tolist()
            held = {i: tokens for i, tokens in held.items() if i not in gone}
            work = partial(self.index.delete, gone)
        elif kind < 0.9 or not ids:
            updated = stream.choice(ids, min(len(ids), 10), replace=False).tolist() if ids else []
            new = stream.integers(0, 1 << 40, MORE) * len(self.states) + number
            names = list(dict.fromkeys([*updated, *new.tolist()]))
            added = {name: random_parts(stream) for name in names}
            held.update(added)
            work = partial(self.index.update, joined(added), threads=1)
        elif kind < 0.94:
            work = partial(self.index.rebuild, threads=1)
        else:
            work = partial(self.index.save, self.folder, overwrite=True)
        self.states[number].append((time.perf_counter(), held))
        work()
        self.returned[number].append(time.perf_counter())
        if self.alone and kind >= 0.94:
            self.index = MuveraIndex.load(self.folder, verify_files=True)
        self.changes += 1

    def search(self, stream: np.random.Generator) -> None:
        """Search in one of several ways, and check the answer.

        It is compared with the states that could be visible.
        """
        query, ids = stream.normal(size=(3, 12)).astype(np.float32), self.index.ids.tolist()
        # With all candidates but one, vectors are searched, and at most one document is
        # missing.
        filled = sum(len(tokens) > 0 for parts in self.states[0][-1][1].values() for tokens in parts)
        ways: list[dict[str, Any]] = [{"candidates": max(10, filled - 1) if self.alone else 10**6}]
        ways += [] if self.alone else [{"candidates": 40, "ef": 60}, {"recall": 0.9, "candidates": None}]
        way = int(stream.integers(len(ways)))
        among = {i for i in ids if stream.random() < 0.5} if stream.random() < 0.3 and ids else None
        start = time.perf_counter()
        ranking = self.index.search(query, 10, threads=1, ids=among, **ways[way])[0]
        stop = time.perf_counter()
        visible = [
            [
                held
                for i, (began, held) in enumerate(states)
                if began <= stop and min(ends[i : i + 1], default=stop) >= start
            ]
            for states, ends in zip(self.states, self.returned, strict=True)
        ]
        for parts in itertools.product(*visible):
            held = {i: tokens for part in parts for i, tokens in part.items() if among is None or i in among}
            if agrees(ranking, query, held, way == 0, int(self.alone)):
                break
        else:
            self.faults.append(f"search {ways[way]} of {among or 'all'} found {list(ranking)}")
        self.searches += 1


def random_parts(stream: np.random.Generator) -> list[np.ndarray]:
    """Return the token vectors of a document's parts, of which most have one."""
    count = int(stream.integers(2, 5)) if stream.random() < 0.2 else 1
    return [stream.normal(size=(int(stream.integers(0, 5)), 12)).astype(np.float32) for _ in range(count)]


def joined(documents: Mapping[Any, list[np.ndarray]]) -> MultiVectors:
    """Return documents with parts as a collection."""
    ids = [id for id, parts in documents.items() for _ in parts]
    arrays = [tokens for parts in documents.values() for tokens in parts]
    return MultiVectors.from_arrays(arrays, ids=ids, dimension=12)


def agrees(
    ranking: Ranking, query: np.ndarray, held: Mapping[Any, list[np.ndarray]], complete: bool, missing: int
) -> bool:
    """Return True if each score is that of a part of its document in `held`.

    If `complete`, the documents are the best ones by their best parts.  With `missing`
    1, one part was no candidate.
    """
    exact = [
        (i, float((query.astype(float) @ tokens.T.astype(float)).max(axis=1).sum()))
        for i, parts in held.items()
        for tokens in parts
        if len(tokens)
    ]
    scores = dict(ranking)
    known = {i: [score for j, score in exact if j == i] for i in scores}
    if len(scores) < len(ranking) or any(
        min((abs(each - scores[i]) for each in known[i]), default=np.inf) > 1e-4 for i in scores
    ):
        return False
    found = ranking.scores.astype(float)
    left_out = range(len(exact)) if missing and len(exact) > 10 else [len(exact)]
    best = (_best(exact[:i] + exact[i + 1 :]) for i in left_out)
    return not complete or any(len(found) == len(one) and np.allclose(found, one, atol=1e-4) for one in best)


def _best(scores: list[tuple[Any, float]]) -> list[float]:
    """Return the scores of the ten best documents, from the scores of their parts."""
    documents: dict[Any, float] = {}
    for i, score in scores:
        documents[i] = max(score, documents.get(i, -np.inf))
    return sorted(documents.values(), reverse=True)[:10]
