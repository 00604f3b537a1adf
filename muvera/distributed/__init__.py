"""Encoding and searching on many machines: workers of other engines, shards on Ray."""

from .encoding import EncodeDocuments, EncodeTexts
from .ray_index import RayIndex, ShardedAnswer, ShardError
from .shards import ShardCounts, build_shards

__all__ = [
    "EncodeDocuments",
    "EncodeTexts",
    "RayIndex",
    "ShardCounts",
    "ShardError",
    "ShardedAnswer",
    "build_shards",
]
