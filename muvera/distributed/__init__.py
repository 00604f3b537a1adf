"""Encoding and searching on many machines: workers of other engines, shards on Ray."""

from .actors import ShardError
from .encoding import EncodeDocuments, EncodeTexts
from .ray_index import RayIndex, ShardedAnswer
from .ray_texts import open_text_shards
from .shards import ShardCounts, build_shards

__all__ = [
    "EncodeDocuments",
    "EncodeTexts",
    "RayIndex",
    "ShardCounts",
    "ShardError",
    "ShardedAnswer",
    "build_shards",
    "open_text_shards",
]
