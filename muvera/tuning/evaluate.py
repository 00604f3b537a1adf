"""Recall of encoders in every storage, one encoder's vectors in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..encoders.base import Encoder, EncoderConfig
from ..encoders.registry import make_encoder
from ..mips import PQSearch, VectorSearch
from .sample import TOP, Asked, TuningSample
from .search_space import Arm, Storage

__all__ = ["DEPTHS", "Bench", "Measured", "mean_recall", "places"]

#: Numbers of candidates that recall is looked at.
DEPTHS = (10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Measured:
    """What one arm found in one storage.

    Parameters
    ----------
    choosing, held_out : int64 (n_queries, TOP)
        At which place each of the exact best was found, as :func:`places` returns it.
    windows : int64 (n_queries, TOP) or None
        The same of the windows, where there are any beside real queries.
    encode_seconds : float
        A document.
    query_seconds : float
        A query: encoding it and searching the sample.
    """

    choosing: NDArray[np.int64]
    held_out: NDArray[np.int64]
    windows: NDArray[np.int64] | None
    encode_seconds: float
    query_seconds: float


class Bench:
    """Measures arms on a sample; fitted encoders are kept, their vectors are not.

    Parameters
    ----------
    sample : TuningSample
    depth : int
        Candidates that are looked at, at most.
    threads : int, optional
        Times depend on it, what is found does not.
    advance : callable
        Called with 1 after each encoder.
    """

    def __init__(
        self, sample: TuningSample, depth: int, threads: int | None, advance: Callable[[int], object]
    ) -> None:
        self.sample, self.depth, self.threads, self._advance = sample, depth, threads, advance
        self._encoders: dict[EncoderConfig, Encoder] = {}

    def encoder(self, config: EncoderConfig) -> Encoder:
        """Return the fitted encoder, which has seen the documents to learn from and no query."""
        if config not in self._encoders:
            seen = self.sample.documents[self.sample.learning]
            self._encoders[config] = make_encoder(config).fit(seen, threads=self.threads)
        return self._encoders[config]

    def forget(self, kept: Iterable[EncoderConfig]) -> None:
        """Drop the encoders of other configurations."""
        wanted = set(kept)
        self._encoders = {config: one for config, one in self._encoders.items() if config in wanted}

    def recall(self, arms: Sequence[Arm], storage: Storage, count: int, candidates: int) -> list[float]:
        """Return the arms' mean recall with the queries that choose, among the first `count` documents."""
        asked = self.sample.choosing
        best = asked.best(count)
        found: dict[Arm, float] = {}
        for source in dict.fromkeys(arm.source for arm in arms):
            encoder = self.encoder(source)
            documents = encoder.encode_documents(self.sample.documents[:count], threads=self.threads)
            queries = encoder.encode_queries(asked.queries, threads=self.threads)
            for arm in (arm for arm in arms if arm.source == source):
                search = self._filled(arm, storage, documents)
                place = places(
                    search, queries[:, : arm.floats], asked, best, min(candidates, count), self.threads
                )
                found[arm] = mean_recall(place, candidates)
            self._advance(1)
        return [found[arm] for arm in arms]

    def measure(self, source: EncoderConfig, pairs: Sequence[tuple[Arm, Storage]]) -> list[Measured]:
        """Measure arms of one source on the whole sample."""
        sample, encoder = self.sample, self.encoder(source)
        begun = time.perf_counter()
        documents = encoder.encode_documents(sample.documents, threads=self.threads)
        encoding = (time.perf_counter() - begun) / len(documents)
        sides = [side for side in (sample.choosing, sample.held_out, sample.windows) if side is not None]
        begun = time.perf_counter()
        queries = [encoder.encode_queries(asked.queries, threads=self.threads) for asked in sides]
        asking = (time.perf_counter() - begun) / sum(map(len, queries))
        best = [asked.best(len(documents)) for asked in sides]
        found = []
        for arm, storage in pairs:
            search = self._filled(arm, storage, documents)
            begun = time.perf_counter()
            place = [
                places(search, rows[:, : arm.floats], asked, top, self.depth, self.threads)
                for rows, asked, top in zip(queries, sides, best, strict=True)
            ]
            searching = (time.perf_counter() - begun) / sum(map(len, queries))
            windows = place[2] if len(place) > 2 else None
            found.append(Measured(place[0], place[1], windows, encoding, asking + searching))
        self._advance(1)
        return found

    def _filled(self, arm: Arm, storage: Storage, documents: NDArray[np.float32]) -> VectorSearch:
        """Return a search over the documents; codes are learned from those that encoders learn from."""
        search = storage.search(arm.floats)
        rows = np.arange(len(documents))
        first = self.sample.learning
        first = first[first < len(documents)]
        vectors = np.ascontiguousarray(documents[:, : arm.floats])
        search.add(first, vectors[first], self.threads)
        if isinstance(search, PQSearch):
            search.learn(self.threads)
        rest = np.setdiff1d(rows, first)
        if len(rest):
            search.add(rest, vectors[rest], self.threads)
        return search


def mean_recall(place: NDArray[np.int64], candidates: int) -> float:
    """Return the mean of recall among `candidates` and among half as many.

    Where all find nearly everything among the candidates, half as many still tell them apart.
    """
    halfway = max(TOP, candidates // 2)
    return float(np.mean([(place < depth).mean() for depth in (halfway, candidates)]))


def places(
    search: VectorSearch,
    queries: NDArray[np.float32],
    asked: Asked,
    best: NDArray[np.int64],
    depth: int,
    threads: int | None = None,
) -> NDArray[np.int64]:
    """Return at which place of the search each of `best` is found.

    Parameters
    ----------
    search : VectorSearch
        Its labels are positions of documents.
    queries : float32 (n, dimension)
        Encoded.
    asked : Asked
        The same queries; their own documents take no place.
    best : int64 (n, TOP)
    depth : int
        Places that are looked at.

    Returns
    -------
    int64 (n, TOP)
        From 0; a place of at least `depth` where it was not found.
    """
    count = len(search)
    labels, _ = search.search(np.ascontiguousarray(queries), min(depth + 1, count), threads=threads)
    at = np.full((len(labels), count + 1), depth + 1)
    np.put_along_axis(at, labels, np.broadcast_to(np.arange(labels.shape[1]), labels.shape), axis=1)
    at[:, count] = depth + 1  # of no document: own ones that are not in the search
    place = np.take_along_axis(at, best, axis=1)
    own = np.where((asked.own >= 0) & (asked.own < count), asked.own, count)[:, np.newaxis]
    return place - (np.take_along_axis(at, own, axis=1) < place)
