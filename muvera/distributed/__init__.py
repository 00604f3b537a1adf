"""Encoding in data-frame engines, and indexes in shards."""

from .encode_documents import EncodeDocuments
from .shards import HTTPShard, ShardedAnswer, ShardedIndex, ShardError

__all__ = ["EncodeDocuments", "HTTPShard", "ShardError", "ShardedAnswer", "ShardedIndex"]
