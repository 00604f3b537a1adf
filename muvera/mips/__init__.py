"""Maximum inner product search over single vectors.

An exact search, a scan of codes and a graph have one interface.
"""

from .base import VectorSearch
from .exact import ExactSearch
from .hnsw import HNSWSearch
from .scan import ScanSearch
from .settings import HNSWSettings

#: Every search class by its kind.
SEARCHES: dict[str, type[VectorSearch]] = {
    search.kind: search for search in (ExactSearch, ScanSearch, HNSWSearch)
}


def make_search(kind: str, dimension: int, hnsw: HNSWSettings | None = None) -> VectorSearch:
    """Return a search without vectors.

    The kind "exact" reads all floats, "scan" reads 4-bit codes, and "hnsw" searches a
    graph with the settings `hnsw`.  Raise ImportError if `kind` is "hnsw" and hnswlib
    is not installed.
    """
    return SEARCHES[kind].empty(dimension, hnsw)
