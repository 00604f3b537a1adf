"""The contract between the runner and a system that answers queries.

A system is made with its build arguments, builds itself once from a collection's material and then
answers queries at several settings (query arguments).  The runner judges what it returns: scores of
Chamfer are computed again, and times are those of the process that answers.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors, rerank

__all__ = ["Answers", "Family", "Material", "NotApplicableError", "Ranked", "System", "arguments_of"]

Family = Literal["muvera", "baseline", "peer"]

#: Positions of documents, best first, int64 (m,), and their scores, float32 (m,).
Ranked = tuple[NDArray[np.int64], NDArray[np.float32]]


class NotApplicableError(Exception):
    """A collection lacks what a system is made for, such as texts: it is left out, which is no failure."""


@dataclass(frozen=True, eq=False)
class Material:
    """What a system may be built from.

    Parameters
    ----------
    documents : MultiVectors
        Token vectors, every document with a token; positions are the ids.
    folder : Path
        Scratch folder of this system alone; it exists.
    cache : Path
        Where environments of peers and other things are kept that are made again when missing.
    seed : int
        Fixes every random choice of the system.
    threads : int
        How many the system may use.
    document_texts, query_texts : list of str, optional
        Where the collection has texts; in the order of the token vectors.
    document_pooled, query_pooled : float32 (n, width), optional
        The model's own single vectors, where they are stored.
    document_token_ids, query_token_ids : list of int arrays, optional
        Vocabulary ids of the token vectors, where they are stored.
    training_queries : MultiVectors, optional
        Queries that are not asked, where the experiment sets some aside.
    shared : dict
        Results that several systems of the same experiment and collection use, such as a tuning.
    """

    documents: MultiVectors
    folder: Path
    cache: Path
    seed: int
    threads: int
    document_texts: list[str] | None = None
    query_texts: list[str] | None = None
    document_pooled: NDArray[np.float32] | None = None
    query_pooled: NDArray[np.float32] | None = None
    document_token_ids: list[NDArray[np.int64]] | None = None
    query_token_ids: list[NDArray[np.int64]] | None = None
    training_queries: MultiVectors | None = None
    shared: dict[Hashable, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Answers:
    """What a system found.

    Parameters
    ----------
    ids : int64 (n, k)
        Positions of documents, best first; -1 where fewer than k were found, at the end of a row.
    scores : float32 (n, k)
        The system's own scores, higher is better; what stands beside an id of -1 does not matter.
    seconds : float64 (n,)
        Wall time of each query, measured one query at a time inside the process that answers.
    facts : dict of float64 (n,)
        Other numbers about each query, by name.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    seconds: NDArray[np.float64]
    facts: dict[str, NDArray[np.float64]] = field(default_factory=dict)


class System(ABC):
    """Base class of systems.

    Build arguments are the keywords of ``__init__``, query arguments the keywords of ``search`` after `k`;
    a configuration is checked against both signatures before anything runs (open keywords,
    ``**build``, are checked by ``__init__``, and named by :meth:`open_arguments`).

    Attributes
    ----------
    name : str
        As in :data:`experiments.systems.registry.SYSTEMS`.
    family : {"muvera", "baseline", "peer"}
    chamfer : bool
        Whether the scores claim to be exact Chamfer similarities (sums over query tokens), of a class, or
        of one system where its arguments decide.  They are then compared with those that the runner
        computes, but for the query argument ``rerank: false``.
    own_process : bool
        Whether the work is done in another process, whose kernels a small build here would not warm up.
    build_seconds : float or None
        Time of ``build`` where it is not that of the call, as without handing documents over.
    """

    name: ClassVar[str]
    family: ClassVar[Family] = "baseline"
    chamfer: bool = False
    own_process: ClassVar[bool] = False
    build_seconds: float | None = None

    @staticmethod
    def open_arguments() -> Iterable[str]:
        """Return the names of build arguments that stand behind open keywords."""
        return ()

    def prepare(self, material: Material) -> None:  # noqa: B027 (most systems need nothing)
        """Do what has nothing to do with the collection, such as making environments; it is not timed."""

    @abstractmethod
    def build(self, material: Material) -> None:
        """Build the index.  The call is timed whole; every system begins with this one's own lines."""
        self.documents, self.threads = material.documents, material.threads

    @abstractmethod
    def search(self, queries: MultiVectors, k: int, *_: Any, **query: Any) -> Answers:
        """Answer queries one at a time.

        Parameters
        ----------
        queries : MultiVectors
            Their ids are their positions among the collection's queries, for systems that use texts or
            pooled vectors.
        k : int
            How many documents to return, at most as many as there are.
        **query
            Query arguments.
        """

    @abstractmethod
    def bytes_per_document(self) -> float:
        """Return the size of the index on top of the token vectors that every exact reranker reads."""

    def token_bytes_per_document(self) -> float:
        """Return the bytes of the tokens that an exact ranking reads, where :meth:`reads_tokens` says so."""
        return self.documents.tokens.nbytes / len(self.documents)

    def disagreement(self, queries: MultiVectors, k: int, **query: Any) -> str | None:
        """Compare two ways to the same answer before either is timed; say in a sentence where they differ."""
        return None

    def facts(self) -> dict[str, float | str]:
        """Return numbers and words about the built index, which are kept with the results."""
        return {}

    def fitted_on(self) -> NDArray[np.int64] | None:
        """Return the positions of the documents that maps were learned from, where these are not all."""
        return None

    def reads_tokens(self, **query: Any) -> bool:
        """Return whether answers at these query arguments need the stored tokens, whose bytes then count."""
        return True

    def close(self) -> None:  # noqa: B027 (most systems hold nothing outside the object)
        """Free memory and end processes; called also after an error."""

    def ranked_exactly(self, query: MultiVectors, candidates: NDArray[np.int64], k: int) -> Ranked:
        """Return the `k` best of `candidates` by exact Chamfer."""
        ranking = rerank(query, self.documents, [candidates], k, threads=self.threads)[0]
        return np.asarray(ranking.ids, np.int64), ranking.scores


def arguments_of(system: type[System], side: Literal["build", "query"]) -> dict[str, Any]:
    """Return the names and defaults of a system's arguments, read from its signatures.

    Parameters
    ----------
    system : class of a System
    side : {"build", "query"}

    Returns
    -------
    dict
        ``inspect.Parameter.empty`` as the value of an argument that must be given.
    """
    function = system.__init__ if side == "build" else system.search
    parameters = inspect.signature(function).parameters.values()
    skipped = ("self",) if side == "build" else ("self", "queries", "k")
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = {p.name: p.default for p in parameters if p.name not in skipped and p.kind in kinds}
    if side == "build":
        found |= dict.fromkeys(system.open_arguments(), None)
    return found
