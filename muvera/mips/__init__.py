"""Maximum inner product search over single vectors: exact and HNSW behind one interface."""

from .base import VectorSearch
from .exact import ExactSearch
from .hnsw import HNSWSearch

__all__ = ["ExactSearch", "HNSWSearch", "VectorSearch"]
