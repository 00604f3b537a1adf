"""The contract between the runner and a system that answers queries, and the register of systems.

A system is made with its build arguments, builds itself once from a collection's material and then
answers queries at several settings (query arguments).  The runner judges what it returns: scores of
Chamfer are computed again, and times are those of the process that answers.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors

from ..known_names import require_known

__all__ = [
    "SYSTEMS",
    "Answers",
    "Family",
    "Material",
    "NotApplicableError",
    "System",
    "SystemRegister",
    "arguments_of",
]

Family = Literal["ours", "baseline", "peer"]


class NotApplicableError(Exception):
    """A collection lacks what a system is made for, such as texts: it is left out, which is no failure."""


@dataclass(frozen=True, eq=False)
class Material:
    """What a system may be built from.

    Parameters
    ----------
    documents : MultiVectors
        Token vectors, every document with a token; positions are the ids.
    document_texts, query_texts : list of str, optional
        Where the collection has texts; in the order of the token vectors.
    document_pooled, query_pooled : float32 (n, width), optional
        The model's own single vectors, where they are stored.
    folder : Path
        Scratch folder of this system alone; it exists.
    cache : Path
        Where environments of peers and other things are kept that are made again when missing.
    seed : int
        Fixes every random choice of the system.
    threads : int
        How many the system may use.
    """

    documents: MultiVectors
    document_texts: list[str] | None
    query_texts: list[str] | None
    document_pooled: NDArray[np.float32] | None
    query_pooled: NDArray[np.float32] | None
    folder: Path
    cache: Path
    seed: int
    threads: int


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
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    seconds: NDArray[np.float64]


class System(Protocol):
    """What the runner asks of a system.

    Build arguments are the keywords of ``__init__``, query arguments the keywords of ``search`` after `k`;
    a configuration is checked against both signatures before anything runs (open keywords,
    ``**build``, are checked by ``__init__`` unless the class names them, see below).

    Attributes
    ----------
    name : str
        As in SYSTEMS.
    family : {"ours", "baseline", "peer"}
    chamfer : bool
        Optional, False where it is missing: whether the scores claim to be exact Chamfer similarities
        (sums over query tokens).  They are then compared with those that the runner computes, but for
        the query argument ``rerank: false``.

    Notes
    -----
    Four more methods are called where a system has them:

    - ``disagreement(queries, positions, k, **query) -> str | None``: compares two ways to the same
      answer before either is timed, and says in a sentence where they differ;
    - ``prepare(material)``: called before ``build`` and not timed, for what has nothing to do with the
      collection, such as environments of other libraries;
    - ``facts() -> dict[str, float]``: numbers about the built index, kept with the results;
    - ``reads_tokens(**query) -> bool``: whether answers at these query arguments need the stored token
      vectors, too, whose bytes then count; without it they do.

    An attribute ``build_seconds``, where a system has it, is taken for the time of ``build``: that of a
    process of its own, without handing documents over.

    A class with open keywords may name them: ``open_arguments() -> Iterable[str]``, a static method.
    """

    name: ClassVar[str]
    family: ClassVar[Family]

    def __init__(self, **build: Any) -> None: ...

    def build(self, material: Material) -> None:
        """Build the index.  The call is timed whole."""
        ...

    def search(
        self, queries: MultiVectors, positions: NDArray[np.int64], k: int, *_: Any, **query: Any
    ) -> Answers:
        """Answer queries one at a time.

        Parameters
        ----------
        queries : MultiVectors
        positions : int64 (n,)
            Which of the collection's queries these are, for systems that use texts or pooled vectors.
        k : int
            How many documents to return, at most as many as there are.
        **query
            Query arguments.
        """
        ...

    def bytes_per_document(self) -> float:
        """Return the size of the index on top of the token vectors that every exact reranker reads."""
        ...

    def close(self) -> None:
        """Free memory and end processes; called also after an error."""
        ...


class SystemRegister(Mapping[str, type[System]]):
    """Systems by name; a module is imported when its system is first asked for."""

    def __init__(self, places: dict[str, str]) -> None:
        self._places: dict[str, str | type[System]] = dict(places)

    def register(self, name: str, system: str | type[System]) -> None:
        """Add a system: its class, or ``module:Class`` with the module's name below experiments.systems."""
        self._places[name] = system

    def unregister(self, name: str) -> None:
        """Take a system out again."""
        del self._places[name]

    def __getitem__(self, name: str) -> type[System]:
        require_known(name, self._places, "system")
        place = self._places[name]
        if not isinstance(place, str):
            return place
        module, _, class_name = place.partition(":")
        try:
            found = getattr(import_module(f"experiments.systems.{module}"), class_name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"The system {name!r} needs {error.name}: pip install 'muvera-toolkit[experiments]'.",
                name=error.name,
            ) from error
        system: type[System] = found
        return system

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


#: Name of a system -> its class.
SYSTEMS = SystemRegister(
    {
        "exhaustive": "exhaustive:Exhaustive",
        "muvera": "muvera_index:Muvera",
        "bm25": "bm25:BM25",
        "fde": "first_stage:Candidates",
        "pooled": "pooled:Pooled",
        "single_vector": "single_vector:SingleVector",
        "xtr": "xtr:XTR",
        "plaid": "plaid:Plaid",
        "fastembed": "peer_fde:Fastembed",
        "muvfde": "peer_fde:Muvfde",
        "muvera_python": "peer_fde:MuveraPython",
    }
)


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
    skipped = ("self",) if side == "build" else ("self", "queries", "positions", "k")
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = {p.name: p.default for p in parameters if p.name not in skipped and p.kind in kinds}
    if side == "build" and hasattr(system, "open_arguments"):
        found |= dict.fromkeys(system.open_arguments(), None)
    return found
