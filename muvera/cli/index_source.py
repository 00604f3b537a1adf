"""IndexSource: the documents of an index as token embeddings, for every command that reads some."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..convert.sources.base import collection_batches
from ..data.multivectors import MultiVectors
from ..index.manifest import MANIFEST
from ..index.muvera_index import MuveraIndex

__all__ = ["IndexSource", "is_index"]

# Documents read at a time.
_DOCUMENTS = 1024


def is_index(path: Path) -> bool:
    """Whether a folder holds an index."""
    return (path.expanduser() / MANIFEST).is_file()


class IndexSource:
    """Tokens and ids of an index's documents, in the order they were added.

    Parameters
    ----------
    path : Path
        The index's folder.

    Raises
    ------
    IndexFolderError
        Where the index is damaged or of another version.
    """

    name = "muvera index"
    lossy = False
    nbits: int | None = None

    def __init__(self, path: Path) -> None:
        self._index = MuveraIndex.load(path.expanduser())
        info = self._index.info()
        self.dimension = info.dimension
        self.num_documents: int | None = info.documents
        self.num_tokens: int | None = info.tokens

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the documents with their ids, at most `max_tokens` tokens at a time."""
        ids = self._index.ids
        for start in range(0, len(ids), _DOCUMENTS):
            yield from collection_batches(self._index.tokens(ids[start : start + _DOCUMENTS]), max_tokens)
