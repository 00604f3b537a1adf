"""Maximum inner product search over single vectors, exact or in a graph, behind one interface."""

from collections.abc import Callable
from importlib.util import find_spec

from .base import SavedState, VectorSearch
from .exact import ExactSearch
from .hnsw import HNSWSearch
from .scan import ScanSearch
from .settings import HNSWSettings, USearchSettings
from .usearch import USearchSearch

__all__ = [
    "GRAPHS",
    "SEARCHES",
    "ExactSearch",
    "HNSWSearch",
    "HNSWSettings",
    "SavedState",
    "ScanSearch",
    "Settings",
    "USearchSearch",
    "USearchSettings",
    "VectorSearch",
    "available_graph",
    "make_search",
]

#: Settings of a graph.
Settings = HNSWSettings | USearchSettings

#: Every search class by its kind.
SEARCHES: dict[str, type[VectorSearch]] = {
    search.kind: search for search in (ExactSearch, ScanSearch, HNSWSearch, USearchSearch)
}

#: Kinds of graphs and the libraries they need, the preferred one first.
GRAPHS = {"hnsw": "hnswlib", "usearch": "usearch"}


def available_graph() -> str:
    """Return the first kind of graph whose library is installed.

    Raises
    ------
    ImportError
        If neither library is installed.
    """
    for kind, library in GRAPHS.items():
        if find_spec(library) is not None:
            return kind
    raise ImportError(
        "A collection of this size needs a graph, but neither hnswlib nor usearch is installed. Install one with: "
        "pip install usearch"
    )


def make_search(kind: str, dimension: int, settings: Settings | None = None) -> VectorSearch:
    """Return an empty search of this kind, with `settings` if it is a graph."""
    make: Callable[..., VectorSearch] = SEARCHES[kind]
    return make(dimension) if settings is None else make(dimension, settings)
