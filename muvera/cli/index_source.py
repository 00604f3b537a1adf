"""IndexSource: the documents of an index as token embeddings, for every command that reads some."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..convert.sources.base import Source
from ..data.batches import collection_batches
from ..data.multivectors import MultiVectors
from ..index.manifest import MANIFEST
from ..index.muvera_index import MuveraIndex
from ..reranking.codecs.residual import ResidualCodec

__all__ = ["CodedIndexSource", "IndexSource", "is_index", "open_index"]

# Documents read at a time.
_DOCUMENTS = 1024


def is_index(path: Path) -> bool:
    """Whether a folder holds an index."""
    return (path.expanduser() / MANIFEST).is_file()


class IndexSource(Source):
    """Tokens and ids of an index's documents, in the order they were added.

    Parameters
    ----------
    index : MuveraIndex
    """

    name = "muvera index"

    def __init__(self, index: MuveraIndex) -> None:
        self._index = index
        info = index.info()
        self.dimension = info.dimension
        self.num_documents = info.documents
        self.num_tokens = info.tokens

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the documents with their ids, at most `max_tokens` tokens at a time."""
        ids = self._index.ids
        for start in range(0, len(ids), _DOCUMENTS):
            yield from collection_batches(self._index.tokens(ids[start : start + _DOCUMENTS]), max_tokens)


class CodedIndexSource(IndexSource):
    """Codes that an index keeps as a PLAID index had them, see :class:`muvera.data.batches.CodedSource`.

    Parameters
    ----------
    index : MuveraIndex
    codec : ResidualCodec
        Of its codes.
    """

    lossy = True

    def __init__(self, index: MuveraIndex, codec: ResidualCodec) -> None:
        super().__init__(index)
        self.nbits = codec.bits
        learned = codec.to_arrays()
        self.centroids, self.bucket_weights = learned["centroids"], learned["levels"]

    def coded_batches(
        self, max_tokens: int
    ) -> Iterator[tuple[MultiVectors, NDArray[Any], NDArray[np.uint8]]]:
        """Yield documents, centroids of their tokens and packed residuals."""
        for documents in self.batches(max_tokens):
            coded = self._index.codes(documents.ids)
            assert isinstance(coded.codec, ResidualCodec)
            numbers, _, packed = coded.codec.split_codes(coded.tokens)
            yield documents, numbers, packed


def open_index(path: Path) -> IndexSource:
    """Return the source of an index's folder.

    Raises
    ------
    IndexFolderError
        Where the index is damaged or of another version.
    """
    index = MuveraIndex.load(path.expanduser())
    codec = index.codec if index.settings.tokens is None else None
    return CodedIndexSource(index, codec) if isinstance(codec, ResidualCodec) else IndexSource(index)
