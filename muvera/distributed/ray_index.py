"""RayIndex: shards in the actors of a Ray cluster, searched together."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, MultiVectorsLike, checked_texts
from ..data.ranking import Ranking, best_first
from ..fde.config import FDEConfig
from ..fde.files import load_encoder
from ..index.muvera_index import MuveraIndex
from ..index.searching import DEFAULT_K, SearchPlan
from ..utils.checks import counted, import_extra, require_choice
from .actors import Actors, OnFailure, ShardError
from .shards import open_shards

# Bytes of token vectors that are sent with each call: below Ray's limit of 100 KB.
_INLINE = 65_536


class ShardedAnswer(NamedTuple):
    """The answer of a :class:`RayIndex`.

    Parameters
    ----------
    rankings : list of Ranking
        One per query, over the shards that answered.
    failed : dict of str to str
        For each shard that did not answer, by name, the reason.
    """

    rankings: list[Ranking]
    failed: dict[str, str]


class ShardActor:
    """A shard in a separate process, which searches with `threads` threads."""

    def __init__(self, folder: str, threads: int) -> None:
        self._index = MuveraIndex.load(folder)
        self._threads = threads

    def size(self) -> int:
        """Return the number of documents."""
        return len(self._index)

    def search(
        self, queries: MultiVectors, k: int, candidates: int | None, recall: float | None
    ) -> list[Ranking]:
        """Return the shard's rankings, see :meth:`muvera.MuveraIndex.search`."""
        return self._index.search(queries, k, candidates=candidates, recall=recall, threads=self._threads)


class RayIndex:
    """Shards of :func:`build_shards` in actors of a Ray cluster.

    Each shard ranks its candidates by exact Chamfer similarity, so the scores of all
    shards can be compared and merged.  Shards send ids and scores, not documents.
    Several threads may search at the same time.  The actors end with this object's
    process, or with :meth:`close`; ``with`` closes them at the end of a block.

    Open it with :meth:`open`.

    Parameters
    ----------
    actors : Actors
        The actors of all shards, in the order of the documents.
    config : FDEConfig
        Configuration of the shards' encoder.
    size : int
        Number of documents in all shards.
    """

    def __init__(self, actors: Actors, config: FDEConfig, size: int) -> None:
        self._actors = actors
        self._config = config
        self._size = size

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        replicas: int = 1,
        cores: float = 1.0,
        timeout: float = 60.0,
    ) -> RayIndex:
        """Start an actor for each shard, and load the shards.

        Connect to a cluster with ``ray.init`` first; otherwise Ray starts one on this
        machine.

        Parameters
        ----------
        path : path
            The folder of :func:`build_shards`, which all machines see under this name.
        replicas : int
            Actors for each shard, on different machines if possible.  More raise
            throughput, take more memory, and answer when an actor is lost.
        cores : float
            Cores that Ray reserves for each actor; also the threads of a search.  With
            less than 1, several actors share a core, and one thread searches.
        timeout : float
            Seconds that a shard has to load, and to answer each search.

        Returns
        -------
        RayIndex

        Raises
        ------
        FileNotFoundError, ValueError
            If there are no shards, or some are missing.
        ShardError
            If a shard is damaged, or not loaded in time, for example because the
            cluster has no free cores.
        """
        import_extra("ray", "ray", "RayIndex")
        shards = open_shards(path)
        config = load_encoder(shards.root / "encoder").config
        actors = Actors(
            ShardActor, shards.root, shards.names, replicas=replicas, cores=cores, timeout=timeout
        )
        return cls(actors, config, sum(actors.first_answers("size").values()))

    def search(
        self,
        queries: MultiVectorsLike,
        k: int = DEFAULT_K,
        *,
        candidates: int | None = None,
        recall: float | None = None,
        on_failure: OnFailure = "wait",
    ) -> ShardedAnswer:
        """Return the `k` best documents of all shards for each query.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
            The token vectors of each query; one array is one query.
        k : int
            Maximum number of documents for each query.
        candidates : int, optional
            Documents that each shard ranks exactly.  More raise recall and take longer,
            in proportion.  Default: 100, or `k` if that is more.
        recall : float, optional
            Instead of `candidates`: the mean share of its exact best that each shard
            finds, such as 0.95.  Each shard has its calibration.
        on_failure : {"wait", "report"}
            If all actors of a shard are lost, "wait" until one of them has started
            again.  With "report", return the rankings of the other shards, and name
            this one.

        Returns
        -------
        ShardedAnswer

        Raises
        ------
        ShardError
            If a shard does not answer within the timeout, or with "report" if no shard
            does; also if two shards have the same id, or ids of different kinds.
        TypeError, ValueError
            For wrong queries or a wrong setting.
        RuntimeError
            If the index is closed.
        """
        if not self._actors.of_shards:
            raise RuntimeError("This RayIndex is closed. Open it again with RayIndex.open.")
        require_choice("on_failure", on_failure, ("wait", "report"))
        SearchPlan(k=k, candidates=candidates, recall=recall)  # raises for wrong settings
        texts = checked_texts(queries, "queries", self._config.dimension, "this index")
        # Ray sends a small argument with the call.  Machines fetch a large one once.
        ray = import_extra("ray", "ray", "RayIndex")
        shared = ray.put(texts) if texts.tokens.nbytes > _INLINE else texts
        answers, failed = self._actors.ask("search", (shared, k, candidates, recall), on_failure)
        if failed and (on_failure == "wait" or not answers):
            raise ShardError(
                f"{self._actors.failure(failed)} Use on_failure='report' to get the answers of the others."
            )
        # In the order of the documents: ties go to the one that was added first.
        merged = [merge(of_one_query, k, not failed) for of_one_query in zip(*answers.values(), strict=True)]
        return ShardedAnswer(merged, failed)

    def close(self) -> None:
        """End the actors; a second call does nothing."""
        self._actors.close()

    def __enter__(self) -> RayIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        size = f"{counted(len(self), 'document')}, {counted(len(self._actors.of_shards), 'shard')}"
        return f"RayIndex({size}, dimension={self._config.dimension})"


def merge(rankings: tuple[Ranking, ...], k: int, complete: bool = True) -> Ranking:
    """Merge the rankings of shards by score; equal scores keep the order of the shards.

    If a shard is missing (`complete` is False), the expected recall is unknown.  Raise
    ShardError if two shards have the same id, or if some ids are integers and others
    strings.
    """
    filled = [ranking for ranking in rankings if len(ranking)] or [rankings[0]]
    if len({ranking.ids.dtype.kind == "i" for ranking in filled}) > 1:
        raise ShardError(
            "The ids of all shards must be integers, or all strings, but these shards have both. Give "
            "all shards integers, or all shards strings."
        )
    scores = np.concatenate([ranking.scores for ranking in filled])
    best = best_first(scores, k)
    ids = np.concatenate([ranking.ids for ranking in filled])[best]
    if len(np.unique(ids)) < len(ids):
        values, counts = np.unique(ids, return_counts=True)
        raise ShardError(
            f"The id {values[counts.argmax()].item()!r} is in two shards. Build shards of documents with "
            "unique ids."
        )
    # A document among the best of all is among the best of its shard.
    expected = [ranking.expected_recall for ranking in rankings]
    known = [recall for recall in expected if recall is not None]
    recall = min(known) if complete and len(known) == len(expected) else None
    parts: NDArray[np.int64] | None = None
    if any(ranking.parts is not None for ranking in filled):
        first = [np.zeros(len(each), np.int64) if each.parts is None else each.parts for each in filled]
        parts = np.concatenate(first)[best]
    return Ranking(ids, scores[best], all(ranking.exact for ranking in filled), recall, parts)
