"""Searches of an index while other threads change it, and random changes compared with plain arithmetic."""

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from muvera import FDEConfig, MultiVectors, MuveraIndex

#: Documents 0 to STABLE - 1 always exist and are replaced; documents from OTHERS on are added and deleted.
STABLE, OTHERS, DIMENSION = 160, 1_000, 20

#: Score difference of two versions of a document, far smaller than that of two documents.
STEP = 1e-4

#: Searches of a graph or of codes may miss a document; at most this share of them.
MISSED = 0.01


def texts(bases: np.ndarray, ids: list[int], versions: list[int]) -> MultiVectors:
    tokens = np.zeros((len(ids), 2, DIMENSION), np.float32)
    tokens[:, 0, :-1] = 3 * bases[ids]
    tokens[:, 1, -1] = np.array(versions) * STEP
    return MultiVectors.from_arrays(list(tokens), ids=ids)


class Stress:
    """Threads that search and change one index; it collects answers that were correct at no time.

    A query always finds its stable document, and the score identifies the version.
    """

    def __init__(self, seconds: float, folder: Path, seed: int = 0, **settings: Any) -> None:
        self.bases = np.random.default_rng(seed).standard_normal((STABLE, DIMENSION - 1))
        self.bases /= np.linalg.norm(self.bases, axis=1, keepdims=True)
        config = FDEConfig(
            dimension=DIMENSION, num_repetitions=40, num_simhash_projections=3, projection_dimension=8
        )
        documents = texts(self.bases, list(range(STABLE)), [0] * STABLE)
        self.index = MuveraIndex.build(documents, config, threads=1, **settings)
        self.folder, self.seed, self.deadline = folder, seed, time.perf_counter() + seconds
        self.approximate = settings.get("backend") in ("scan", "hnsw")
        # For each version of a stable document: when its write began, and when the write of the next one
        # ended.
        self.began = [[0.0] for _ in range(STABLE)]
        self.ended: list[list[float]] = [[] for _ in range(STABLE)]
        self.searches, self.changes, self.missed, self.faults = 0, 0, 0, list[str]()

    def run(self, readers: int = 4, writers: int = 2) -> None:
        """Search and change until the deadline or the first fault."""
        work = [(self._search, (1, i), None) for i in range(readers)]
        work += [(self._change, (2, i), (i, writers)) for i in range(writers)]  # type: ignore[misc]
        threads = [threading.Thread(target=self._repeat, args=one, daemon=True) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, self.deadline - time.perf_counter()) + 120)
            if thread.is_alive():
                self.faults.append("a thread did not end")
        if self.missed > MISSED * self.searches + 1:
            self.faults.append(f"{self.missed} of {self.searches} searches missed their document")

    def _repeat(self, work: Any, seed: tuple[int, int], share: tuple[int, int] | None) -> None:
        stream = np.random.default_rng([self.seed, *seed])
        while time.perf_counter() < self.deadline and not self.faults:
            try:
                work(stream, *(share or ()))
            except Exception as error:
                self.faults.append(f"{work.__name__} raised {type(error).__name__}: {error}")

    def _search(self, stream: np.random.Generator) -> None:
        document = int(stream.integers(STABLE))
        query = np.zeros((2, DIMENSION), np.float32)
        query[0, :-1], query[1, -1] = self.bases[document], 1
        ways: tuple[dict[str, Any], ...] = (
            {},
            {"ef": 60},
            {"ids": range(STABLE)},
            {"candidates": 2000},
            {"recall": 0.9, "candidates": None},
        )
        way: dict[str, Any] = {"candidates": 40, "threads": 1, **ways[int(stream.integers(len(ways)))]}
        start = time.perf_counter()
        ranking = self.index.search(query, 5, **way)[0]
        if self.approximate and document not in ranking.ids.tolist():
            self.missed += 1
            start = time.perf_counter()
            ranking = self.index.search(query, 5, candidates=10**6, threads=1)[0]
        stop = time.perf_counter()
        self.searches += 1
        ids, answer = ranking.ids.tolist(), f"search {way} for {document} found {list(ranking)}"
        if len(set(ids)) != len(ids) or (np.diff(ranking.scores) > 0).any() or document not in ids:
            self.faults.append(answer)
            return
        version = round((float(ranking.scores[ids.index(document)]) - 3) / STEP)
        began, ended = self.began[document], self.ended[document]
        existed = 0 <= version < len(began) and began[version] <= stop
        if not existed or (version < len(ended) and ended[version] < start):
            self.faults.append(f"{answer}, which is version {version} of {len(began)}")

    def _change(self, stream: np.random.Generator, number: int, writers: int) -> None:
        """Change the index in one of several ways; each writer has ids of its own."""
        self.changes += 1
        kind = stream.random()
        if kind < 0.5:
            ids = stream.choice(np.arange(number, STABLE, writers), 5, replace=False).tolist()
            versions = [len(self.began[i]) for i in ids]
            for i in ids:
                self.began[i].append(time.perf_counter())
            self.index.update(texts(self.bases, ids, versions), threads=1)
            for i in ids:
                self.ended[i].append(time.perf_counter())
        elif kind < 0.75:
            first = OTHERS + number + writers * int(stream.integers(1 << 40))
            ids = [first + writers * j for j in range(int(stream.integers(1, 80)))]
            tokens = stream.standard_normal((len(ids), 3, DIMENSION)).astype(np.float32) * 0.3
            self.index.add(MultiVectors.from_arrays(list(tokens), ids=ids), threads=1)
        elif kind < 0.94:
            own = [int(i) for i in self.index if int(i) >= OTHERS and int(i) % writers == number % writers]
            self.index.delete(own[: int(stream.integers(1, 60))])
        elif kind < 0.97:
            self.index.rebuild(threads=1)
        else:
            self.index.save(self.folder)


def change_at_random(seconds: float, folder: Path, seed: int = 0, **settings: Any) -> int:
    """Change an index at random and compare its answers after each change; return the number of changes."""
    stream = np.random.default_rng(seed)
    config = FDEConfig(dimension=12, num_repetitions=3, num_simhash_projections=2, projection_dimension=12)
    index, held = MuveraIndex(config, **settings), dict[int, np.ndarray]()
    changes, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        kind, ids = stream.random(), list(held)
        if ids and kind < 0.25 + 0.3 * len(ids) / 400:
            gone = stream.choice(ids, int(stream.integers(1, min(len(ids), 30) + 1)), replace=False).tolist()
            index.delete(gone)
            for i in gone:
                del held[i]
        elif kind < 0.9:
            updated = stream.choice(ids, min(len(ids), 10), replace=False).tolist() if ids else []
            names = list(dict.fromkeys([*updated, *stream.integers(0, 1 << 40, 15).tolist()]))
            arrays = [stream.normal(size=(int(stream.integers(0, 5)), 12)).astype(np.float32) for _ in names]
            index.update(MultiVectors.from_arrays(arrays, ids=names, dimension=12), threads=1)
            held.update(zip(names, arrays, strict=True))
        elif kind < 0.93:
            index.rebuild(threads=1)
        else:
            index.save(folder, overwrite=True)
            index = MuveraIndex.load(folder, verify_files=True)
        changes += 1
        assert set(index.ids.tolist()) == set(held), f"wrong documents after {changes} changes"
        for _ in range(3):
            compare(index, held, stream)
    return changes


def compare(index: MuveraIndex, held: dict[int, np.ndarray], stream: np.random.Generator) -> None:
    """Search with all candidates but one, so that vectors are searched and at most one document is missing."""
    query = stream.normal(size=(3, 12)).astype(np.float32)
    among = {i for i in held if stream.random() < 0.5} if stream.random() < 0.3 else set(held)
    exact = {
        i: (query.astype(float) @ held[i].T.astype(float)).max(axis=1).sum() for i in among if len(held[i])
    }
    way: dict[str, Any] = {} if len(among) == len(held) else {"ids": among}
    ranking = index.search(query, 10, candidates=max(10, len(exact) - 1), threads=1, **way)[0]
    best = sorted(exact.values(), reverse=True)[:11]
    possible = [(best[:i] + best[i + 1 :])[:10] for i in range(len(best))] if len(best) > 10 else [best]
    scores = ranking.scores.astype(float)
    assert any(len(scores) == len(one) and np.allclose(scores, one, atol=1e-4) for one in possible), scores
    with suppress(StopIteration):
        wrong = next(i for i, score in ranking if abs(exact.get(int(i), np.inf) - score) > 1e-4)
        raise AssertionError(f"document {wrong} has another score")
