"""Maximum inner product search over single vectors: exact, quantized and HNSW behind one interface."""

from collections.abc import Callable

from .base import SavedState, VectorSearch
from .exact import ExactSearch
from .hnsw import HNSWSearch
from .int8 import Int8Search
from .pq import PQSearch
from .settings import HNSWSettings, PQSettings

__all__ = [
    "SEARCHES",
    "ExactSearch",
    "HNSWSearch",
    "HNSWSettings",
    "Int8Search",
    "PQSearch",
    "PQSettings",
    "SavedState",
    "VectorSearch",
    "make_search",
]

#: Every kind of search by its name.
SEARCHES: dict[str, type[VectorSearch]] = {
    search.kind: search for search in (ExactSearch, Int8Search, PQSearch, HNSWSearch)
}


def make_search(kind: str, dimension: int, settings: HNSWSettings | PQSettings | None = None) -> VectorSearch:
    """Return an empty search of this kind; `settings` are those of its kind, where it has any."""
    make: Callable[..., VectorSearch] = SEARCHES[kind]
    return make(dimension) if settings is None else make(dimension, settings)
