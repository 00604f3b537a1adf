"""RayIndex: shards in the actors of a Ray cluster, searched together."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, MultiVectorsLike, checked_texts
from ..data.ranking import Ranking, best_first
from ..fde.config import FDEConfig
from ..fde.files import load_encoder
from ..index.muvera_index import MuveraIndex
from ..index.searching import DEFAULT_K, SearchPlan
from ..utils.checks import counted, import_extra, require_choice, require_int, require_number
from .shards import open_shards

OnFailure = Literal["wait", "report"]

# Seconds between two attempts to reach a lost actor, which needs some seconds to start.
_PAUSE = 0.1

# Bytes of token vectors that are sent with each call: below Ray's limit of 100 KB.
_INLINE = 65_536

# Characters of a failure's reason in messages.
_REASON = 300


class ShardError(RuntimeError):
    """A shard did not answer, so the answer would be incomplete.

    The message names the shard.
    """


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
    """A shard in a separate process, which searches with `threads` threads.

    Ray starts it again, on another machine if necessary, when it or its machine is
    lost.
    """

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
    actors : dict of str to list
        For each shard, by name in the order of the documents, handles of its actors.
    config : FDEConfig
        Configuration of the shards' encoder.
    timeout : float
        As for :meth:`open`.
    size : int
        Number of documents in all shards.
    """

    def __init__(self, actors: dict[str, list[Any]], config: FDEConfig, timeout: float, size: int) -> None:
        self._actors = actors
        self._config = config
        self._timeout = timeout
        self._turns = itertools.count()
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
        ray = import_extra("ray", "ray", "RayIndex")
        shards = open_shards(path)
        copies = require_int("replicas", replicas, 1)
        reserved = require_number("cores", cores, 0.01)
        config = load_encoder(shards.root / "encoder").config
        # Ray restarts a lost actor. The search repeats a lost call, or reports it.
        options = {"num_cpus": reserved, "max_restarts": -1, "scheduling_strategy": "SPREAD"}
        kind = ray.remote(ShardActor).options(**options)
        threads = max(1, int(reserved))
        actors = {
            name: [kind.remote(str(shards.root / name), threads) for _ in range(copies)]
            for name in shards.names
        }
        patience = require_number("timeout", timeout, 0)
        try:
            sizes = _sizes(actors, shards.root, patience)
        except BaseException:
            _end(actors)
            raise
        return cls(actors, config, patience, sum(sizes))

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
        if not self._actors:
            raise RuntimeError("This RayIndex is closed. Open it again with RayIndex.open.")
        require_choice("on_failure", on_failure, ("wait", "report"))
        SearchPlan(k=k, candidates=candidates, recall=recall)  # raises for wrong settings
        texts = checked_texts(queries, "queries", self._config.dimension, "this index")
        answers, failed = self._ask(texts, (k, candidates, recall), on_failure)
        if failed and (on_failure == "wait" or not answers):
            name, reason = next(iter(failed.items()))
            raise ShardError(
                f"{len(failed)} of {counted(len(self._actors), 'shard')} did not answer, such as {name!r}: "
                f"{reason} Use on_failure='report' to get the answers of the others."
            )
        # In the order of the documents: ties go to the one that was added first.
        rankings = [answers[name] for name in self._actors if name in answers]
        merged = [merge(of_one_query, k, not failed) for of_one_query in zip(*rankings, strict=True)]
        return ShardedAnswer(merged, failed)

    def _ask(
        self, texts: MultiVectors, how: tuple[Any, ...], on_failure: OnFailure
    ) -> tuple[dict[str, list[Ranking]], dict[str, str]]:
        """Return the answer of each shard, and the reasons why shards did not answer.

        `how`: further arguments of :meth:`ShardActor.search`.
        """
        ray = import_extra("ray", "ray", "RayIndex")
        # Ray sends a small argument with the call.  Machines fetch a large one once.
        shared = ray.put(texts) if texts.tokens.nbytes > _INLINE else texts
        turn = next(self._turns)
        deadline = time.monotonic() + self._timeout
        pending: dict[Any, tuple[str, int]] = {}  # each call, its shard and its attempt
        answers: dict[str, list[Ranking]] = {}
        failed: dict[str, str] = {}

        def call(name: str, attempt: int) -> None:
            actors = self._actors[name]
            actor = actors[(turn + attempt) % len(actors)]
            pending[actor.search.remote(shared, *how)] = name, attempt

        for name in self._actors:
            call(name, 0)
        while pending and (left := deadline - time.monotonic()) > 0:
            for reference in ray.wait(list(pending), num_returns=1, timeout=left)[0]:
                name, attempt = pending.pop(reference)
                try:
                    answers[name] = ray.get(reference)
                    failed.pop(name, None)
                except ray.exceptions.RayError as error:
                    cause = getattr(error, "cause", None)
                    if isinstance(cause, (ValueError, TypeError)):  # wrong queries
                        raise cause from None
                    failed[name] = _reason(error)
                    tried_all = attempt + 1 >= len(self._actors[name])
                    if tried_all and on_failure == "report":
                        continue
                    if tried_all:
                        time.sleep(_PAUSE)
                    call(name, attempt + 1)
        for name, _ in pending.values():
            failed.setdefault(name, f"no answer within {self._timeout:g} seconds.")
        return answers, failed

    def close(self) -> None:
        """End the actors; a second call does nothing."""
        _end(self._actors)
        self._actors = {}

    def __enter__(self) -> RayIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        size = f"{counted(len(self), 'document')}, {counted(len(self._actors), 'shard')}"
        return f"RayIndex({size}, dimension={self._config.dimension})"


def _sizes(actors: dict[str, list[Any]], root: Path, timeout: float) -> list[int]:
    """Wait until all actors have loaded their shards, and return the sizes."""
    ray = import_extra("ray", "ray", "RayIndex")
    asked = {actor.size.remote(): name for name, copies in actors.items() for actor in copies}
    done, waiting = ray.wait(list(asked), num_returns=len(asked), timeout=timeout)
    if waiting:
        raise ShardError(
            f"{counted(len(waiting), 'actor')} of {len(asked)} did not load a shard of {root} within "
            f"{timeout:g} seconds, such as {asked[waiting[0]]!r}. Does the cluster have enough free cores "
            "(ray.available_resources())? Give fewer cores=, or a longer timeout=."
        )
    sizes = {}
    for reference in done:
        try:
            sizes[asked[reference]] = ray.get(reference)
        except ray.exceptions.RayError as error:
            raise ShardError(
                f"{asked[reference]!r} of {root} cannot be loaded: {_reason(error)} All machines must see "
                "the folder under this name."
            ) from error
    return list(sizes.values())


def _end(actors: dict[str, list[Any]]) -> None:
    ray = import_extra("ray", "ray", "RayIndex")
    for actor in itertools.chain.from_iterable(actors.values()):
        ray.kill(actor)


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


def _reason(error: BaseException) -> str:
    """Return an error of Ray in one line, without the traceback of another process."""
    lines = str(error).strip().splitlines()
    text = lines[-1].strip() if lines else ""
    return f"{type(error).__name__}: {text[:_REASON].rstrip('.')}."
