"""Maximum inner product search over single vectors: exact, a scan of codes, and a graph, behind one interface."""

from .base import VectorSearch
from .exact import ExactSearch
from .hnsw import HNSWSearch, HNSWSettings
from .scan import ScanSearch

#: Every search class by its kind.
SEARCHES: dict[str, type[VectorSearch]] = {
    search.kind: search for search in (ExactSearch, ScanSearch, HNSWSearch)
}


def make_search(kind: str, dimension: int, hnsw: HNSWSettings | None = None) -> VectorSearch:
    """Return an empty search of this kind; `hnsw` are the settings of a graph."""
    return HNSWSearch(dimension, hnsw) if kind == HNSWSearch.kind else SEARCHES[kind](dimension)
