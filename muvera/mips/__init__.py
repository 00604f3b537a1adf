"""Maximum inner product search over single vectors: exact, quantized and HNSW behind one interface."""

from collections.abc import Callable
from importlib.util import find_spec

from .base import SavedState, VectorSearch
from .exact import ExactSearch
from .hnsw import HNSWSearch
from .int8 import Int8Search
from .pq import PQSearch
from .settings import HNSWSettings, PQSettings, USearchSettings
from .usearch import USearchSearch

__all__ = [
    "GRAPHS",
    "SEARCHES",
    "ExactSearch",
    "HNSWSearch",
    "HNSWSettings",
    "Int8Search",
    "PQSearch",
    "PQSettings",
    "SavedState",
    "USearchSearch",
    "USearchSettings",
    "VectorSearch",
    "available_graph",
    "make_search",
]

#: Settings of a kind of search that has any.
Settings = HNSWSettings | USearchSettings | PQSettings

#: Every kind of search by its name.
SEARCHES: dict[str, type[VectorSearch]] = {
    search.kind: search for search in (ExactSearch, Int8Search, PQSearch, HNSWSearch, USearchSearch)
}

#: Kinds of graphs and the libraries that they need, the preferred one first.
GRAPHS = {"hnsw": "hnswlib", "usearch": "usearch"}


def available_graph() -> str:
    """Return the first kind of graph whose library is installed.

    Raises
    ------
    ImportError
        Where neither is.
    """
    for kind, library in GRAPHS.items():
        if find_spec(library) is not None:
            return kind
    raise ImportError(
        "So many documents need a graph, and neither hnswlib nor usearch is installed. Install one with: "
        "pip install usearch"
    )


def make_search(kind: str, dimension: int, settings: Settings | None = None) -> VectorSearch:
    """Return an empty search of this kind; `settings` are those of its kind, where it has any."""
    make: Callable[..., VectorSearch] = SEARCHES[kind]
    return make(dimension) if settings is None else make(dimension, settings)
