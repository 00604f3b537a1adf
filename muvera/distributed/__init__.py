"""Beyond one process: encoding on engines for data frames, and indexes in shards."""

from .encode_documents import EncodeDocuments
from .file_sample import sample_files
from .shards import HTTPShard, ShardedAnswer, ShardedIndex, ShardError

__all__ = ["EncodeDocuments", "HTTPShard", "ShardError", "ShardedAnswer", "ShardedIndex", "sample_files"]
