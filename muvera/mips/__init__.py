"""Maximum inner product search over single vectors: exact, quantized and HNSW behind one interface."""

from .base import VectorSearch
from .exact import ExactSearch
from .hnsw import HNSWSearch
from .int8 import Int8Search
from .pq import PQSearch

__all__ = ["ExactSearch", "HNSWSearch", "Int8Search", "PQSearch", "VectorSearch"]
