"""Sources: token vectors of documents, read in batches of bounded size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data.batches import token_batches
from ...data.multivectors import MultiVectors
from ...data.validation import Ids, TokenArray
from ..damage import ReadError, ReadTypeError

__all__ = ["Document", "FlatSource", "PaddedSource", "Reader", "RowSource", "Rows", "Source"]


class Source(ABC):
    """Base class of objects that yield token vectors in batches.

    Attributes
    ----------
    name : str
        The format, such as ``"plaid"``.
    dimension : int
        Columns of a token vector.
    num_documents, num_tokens : int or None
        None if unknown until everything is read.
    lossy : bool
        True if the stored vectors are quantized.
    nbits : int or None
        Bits per coordinate of quantized vectors.
    note : str or None
        A remark for the report.
    dropped_rows : int
        Padding rows that the batches have skipped so far.
    """

    name: str
    dimension: int
    num_documents: int | None = None
    num_tokens: int | None = None
    lossy: bool = False
    nbits: int | None = None
    note: str | None = None
    dropped_rows: int = 0

    @abstractmethod
    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield whole documents in order, at most `max_tokens` tokens per batch.

        A single document may exceed `max_tokens`.  Either every batch has ids or none has.
        """


class Reader(NamedTuple):
    """A readable format; each module of ``readers/`` lists its formats in ``READERS``."""

    #: Name for ``format=``.
    name: str
    #: The files that identify the format.
    description: str
    #: Return True if a path is in this format; cheap, and never raises.
    matches: Callable[[Path], bool]
    #: Open a path; the reader's options are keyword-only parameters.
    open_source: Callable[..., Source]


#: An array whose rows are read by slices: a memory map, an HDF5 dataset, a member of a zip file.
Rows = Any


class FlatSource(Source):
    """Source over the tokens of all documents in one array (n_tokens, dimension).

    `offsets` (n + 1,) are the rows where documents begin, checked by :mod:`muvera.data.offsets`.
    """

    def __init__(self, tokens: Rows, offsets: NDArray[np.int64], ids: Ids | None, *, name: str) -> None:
        self.tokens = tokens
        self.offsets = offsets
        self.ids = ids
        self.name = name
        self.dimension = int(tokens.shape[1])
        self.num_documents = len(offsets) - 1
        self.num_tokens = int(offsets[-1])

    @classmethod
    def of(cls, collection: MultiVectors, name: str) -> FlatSource:
        """Return a source whose batches share memory with a collection."""
        ids = collection.ids if collection.has_ids else None
        return cls(collection.tokens, collection.offsets, ids, name=name)

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the documents; a memory map stays unread until its batch is used."""
        for start, stop in token_batches(self.offsets, max_tokens):
            bounds = self.offsets[start : stop + 1]
            # Members of a zip file may start at an odd address, which kernels do not accept.
            tokens = np.require(self.tokens[int(bounds[0]) : int(bounds[-1])], requirements="A")
            yield MultiVectors(tokens, bounds - bounds[0], None if self.ids is None else self.ids[start:stop])


class PaddedSource(Source):
    """Source over a padded array (n, longest, dimension); padding rows are dropped.

    `mask` (n, longest) is True for real tokens.  Without it, rows of zeros are padding.
    """

    def __init__(self, array: Rows, ids: Ids | None, *, name: str, mask: Rows | None = None) -> None:
        self.array = array
        self.ids = ids
        self.name = name
        self.mask = mask
        self.dimension = int(array.shape[2])
        self.num_documents = int(array.shape[0])

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the documents without their padding."""
        count, longest = self.array.shape[:2]
        self.dropped_rows = 0
        for start, stop in token_batches(np.arange(count + 1, dtype=np.int64) * longest, max_tokens):
            padded = np.asarray(self.array[start:stop])
            mask = None if self.mask is None else np.asarray(self.mask[start:stop])
            batch = MultiVectors.from_padded(padded, mask, None if self.ids is None else self.ids[start:stop])
            self.dropped_rows += padded.shape[0] * longest - batch.num_tokens
            yield batch


class Document(NamedTuple):
    """A document as read from a file."""

    #: Its external id, if it has one.
    id: int | str | None
    #: Token vectors (t, dimension); any empty array for a document without tokens.
    tokens: TokenArray
    #: Its place in the file, for messages: "line 7".
    where: str


class RowSource(Source):
    """Source over documents that are read one at a time.

    `documents` returns a new iterator over all documents.  The default dimension is that of the first
    document with a token.  `place` is the file, for messages.
    """

    def __init__(
        self,
        documents: Callable[[], Iterator[Document]],
        *,
        name: str,
        place: str,
        num_documents: int | None = None,
        dimension: int | None = None,
    ) -> None:
        self.documents = documents
        self.name = name
        self.place = place
        self.num_documents = num_documents
        first = next((document.tokens for document in documents() if document.tokens.size), None)
        if dimension is None:
            if first is None:
                raise ReadError(f"{place} has no document with a token, so its dimension is unknown.")
            dimension = first.shape[-1]
        self.dimension = int(dimension)
        # Batches without any token get the precision of the others.
        self._empty_dtype = "float32" if first is None or first.dtype != np.float16 else "float16"

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the documents, joined to batches."""
        waiting: list[Document] = []
        waiting_tokens = position = 0
        with_ids: bool | None = None
        for document in self.documents():
            self._check(document, position, with_ids)
            with_ids = document.id is not None
            size = document.tokens.shape[0] if document.tokens.size else 0
            if waiting and (waiting_tokens + size > max_tokens or len(waiting) >= max_tokens):
                yield self._join(waiting)
                waiting, waiting_tokens = [], 0
            waiting.append(document)
            waiting_tokens += size
            position += 1
        if waiting or not position:
            yield self._join(waiting)

    def _check(self, document: Document, position: int, with_ids: bool | None) -> None:
        where, tokens = f"{self.place}, {document.where}", document.tokens
        if tokens.size and tokens.ndim != 2:
            raise ReadError(
                f"{where}: document {position} has shape {tokens.shape}, not (tokens, dimension)."
            )
        if tokens.size and tokens.shape[1] != self.dimension:
            raise ReadError(
                f"{where}: document {position} has {tokens.shape[1]} columns, but this source has "
                f"dimension={self.dimension}. All documents must come from the same model."
            )
        if with_ids is not None and with_ids != (document.id is not None):
            has, others = ("no id", "have one") if with_ids else ("an id", "have none")
            raise ReadError(
                f"{where}: document {position} has {has}, but earlier documents {others}. "
                "Give every document an id, or none."
            )

    def _join(self, waiting: list[Document]) -> MultiVectors:
        arrays = [document.tokens for document in waiting]
        ids = [document.id for document in waiting]
        kinds = {type(value).__name__ for value in ids}
        if len(kinds) > 1:
            raise ReadTypeError(
                f"{self.place} mixes ids of the types {', '.join(sorted(kinds))}, up to {waiting[-1].where}. "
                "Use only integers or only strings."
            )
        dtype = None if any(array.size for array in arrays) else self._empty_dtype
        named = None if None in ids or not ids else ids
        return MultiVectors.from_arrays(arrays, named, dimension=self.dimension, dtype=dtype)
