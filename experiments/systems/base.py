"""The contract between the runner and a system that answers queries.

A system is created with its build arguments, built once from a collection, and then
queried with several query arguments.  The runner checks the answers: it recomputes the
Chamfer scores.
"""

from __future__ import annotations

import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors, rerank

from ..datasets.collection import Collection

#: Positions of documents, best first, int64 (m,), and their scores, float32 (m,).
Ranked = tuple[NDArray[np.int64], NDArray[np.float32]]


class NotApplicableError(Exception):
    """Error for a collection without data that a system needs, such as texts.

    It is not a failure.
    """


@dataclass(frozen=True, eq=False)
class Material:
    """All inputs of a system's build.

    The folder is a scratch folder for this system alone; the cache contains
    environments of peers.  The seed determines every random choice.  `shared` contains
    parts that several systems of an experiment and collection use.
    """

    collection: Collection
    folder: Path
    cache: Path
    seed: int
    threads: int
    shared: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def documents(self) -> MultiVectors:
        """Token vectors of the documents."""
        return self.collection.documents

    def needs(self, *names: str, reason: str) -> None:
        """Raise NotApplicableError with `reason` if a field is missing."""
        if any(getattr(self.collection, name) is None for name in names):
            raise NotApplicableError(reason)


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of a system."""

    #: Positions of documents, best first, (n, k); -1 at the end of a row if fewer than
    #: k were found.
    ids: NDArray[np.int64]
    #: The system's own scores, higher is better, (n, k); those of an id of -1 are
    #: ignored.
    scores: NDArray[np.float32]
    #: Wall time of each query, one query at a time, in the process that answers.
    seconds: NDArray[np.float64]


class System(ABC):
    """Base class of systems.

    Build arguments are the keywords of ``__init__``, query arguments the keywords of
    ``search`` after `k`.  A configuration is checked against both signatures before
    anything runs; :meth:`open_arguments` returns the names that ``**build`` accepts.
    """

    #: Name in :data:`experiments.systems.registry.SYSTEMS`.
    name: ClassVar[str]
    #: True if the scores are exact Chamfer similarities.  The runner then compares them
    #: with its own, except with the query argument ``rerank: false``.
    chamfer: bool = False
    #: True if the work runs in another process, which a small build in this process
    #: would not warm up.
    own_process: ClassVar[bool] = False
    #: Time of ``build`` if it differs from that of the call, for example without
    #: copying documents to a process.
    build_seconds: float | None = None

    @staticmethod
    def open_arguments() -> Iterable[str]:
        """Return the names of the build arguments that ``**build`` accepts."""
        return ()

    def prepare(self, material: Material) -> None:  # noqa: B027 (most systems need nothing)
        """Do untimed work that does not depend on the collection.

        Creating environments is an example.
        """

    @abstractmethod
    def build(self, material: Material) -> None:
        """Build the index; the whole call is timed.

        Every system calls this method first.
        """
        self.documents, self.threads = material.documents, material.threads

    @abstractmethod
    def search(self, queries: MultiVectors, k: int, *_: Any, **query: Any) -> Answers:
        """Answer queries one at a time.

        Parameters
        ----------
        queries : MultiVectors
            Token vectors of n queries.  Their ids are positions among the collection's
            queries, for systems that use texts.
        k : int
            Number of documents to return for each query.
        **query : Any
            Query arguments of the configuration, such as a number of candidates.

        Returns
        -------
        Answers
            Positions of documents, scores and seconds of the n queries.
        """

    @abstractmethod
    def bytes_per_document(self) -> float:
        """Return the bytes of the index without token vectors.

        Every exact reranker reads the token vectors.
        """

    def token_bytes_per_document(self) -> float:
        """Return the bytes of tokens that an exact ranking reads.

        They are counted if :meth:`reads_tokens` is true.
        """
        return self.documents.tokens.nbytes / len(self.documents)

    def reads_tokens(self, **query: Any) -> bool:
        """Return True if answers with these query arguments need the stored tokens."""
        return bool(query.get("rerank", True))

    def close(self) -> None:  # noqa: B027 (most systems hold nothing outside the object)
        """Free memory and end processes; also called after an error."""

    def ranked_exactly(self, query: MultiVectors, candidates: NDArray[np.int64], k: int) -> Ranked:
        """Return the best candidates by exact Chamfer.

        Parameters
        ----------
        query : MultiVectors
            Token vectors of one query.
        candidates : NDArray[np.int64]
            Positions of documents (n,), in any order.
        k : int
            Number of documents to return.

        Returns
        -------
        Ranked
            Positions and scores of min(k, n) documents, best first.
        """
        ranking = rerank(query, self.documents, [candidates], k, threads=self.threads)[0]
        return np.asarray(ranking.ids, np.int64), ranking.scores


def timed_search(queries: MultiVectors, k: int, answer: Callable[[int, MultiVectors], Ranked]) -> Answers:
    """Call `answer` for one query after another and time each call.

    An untimed first call warms up.

    Parameters
    ----------
    queries : MultiVectors
        Token vectors of n queries.
    k : int
        Number of documents to keep for each query.
    answer : Callable[[int, MultiVectors], Ranked]
        Called with a query's number and the query; returns positions and scores, best
        first.  Longer answers are cut to `k`, and shorter ones are filled up with -1.

    Returns
    -------
    Answers
        Arrays (n, k), and the wall time of each call in seconds (n,).
    """
    ids: NDArray[np.int64] = np.full((len(queries), k), -1, np.int64)
    scores: NDArray[np.float32] = np.full((len(queries), k), -np.inf, np.float32)
    seconds = np.empty(len(queries))
    if len(queries):
        answer(0, queries[:1])
    for i in range(len(queries)):
        query = queries[i : i + 1]
        start = time.perf_counter()
        found, values = answer(i, query)
        seconds[i] = time.perf_counter() - start
        count = min(k, len(found))
        ids[i, :count], scores[i, :count] = found[:count], values[:count]
    return Answers(ids, scores, seconds)


def arguments_of(system: type[System], side: Literal["build", "query"]) -> dict[str, Any]:
    """Return a system's arguments and their defaults, read from its signatures.

    Parameters
    ----------
    system : type[System]
    side : {"build", "query"}
        Arguments of ``__init__``, or of ``search`` after `k`.

    Returns
    -------
    dict[str, Any]
        Defaults by name; None for the names of :meth:`System.open_arguments`.
    """
    function = system.__init__ if side == "build" else system.search
    skipped = ("self",) if side == "build" else ("self", "queries", "k")
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.values()
    arguments = {p.name: p.default for p in parameters if p.name not in skipped and p.kind in kinds}
    return arguments | (dict.fromkeys(system.open_arguments()) if side == "build" else {})
