"""Source over documents that come one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ...data.multivectors import MultiVectors
from ...data.validation import TokenArray
from ...utils.checks import require_int
from .arrays import require_finite

__all__ = ["Document", "RowSource"]


class Document(NamedTuple):
    """Document as a reader found it."""

    #: Its external id, where it has one.
    id: int | str | None
    #: Token vectors (t, dimension); any empty array for no tokens.
    tokens: TokenArray
    #: Where it stands in the file, for messages: "line 7".
    where: str
    #: Bits a coordinate, where the store had quantized it.
    nbits: int | None = None


class RowSource:
    """Source over documents from an iterator that can be started again.

    Parameters
    ----------
    documents : callable
        Returns a new iterator over the documents.
    name : str
        The format's name.
    place : str
        The file, for messages.
    num_documents : int, optional
        Where known.
    dimension : int, optional
        Where known; else that of the first document with a token.

    Raises
    ------
    ValueError
        Where `dimension` is not given and no document has a token.
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
        self.num_tokens: int | None = None
        first = next((document for document in documents() if document.tokens.size), None)
        self.nbits = None if first is None else first.nbits
        half = first is not None and first.tokens.dtype == "float16"
        self._empty_dtype = "float16" if half else "float32"
        self.lossy = self.nbits is not None
        if dimension is None:
            if first is None:
                raise ValueError(
                    f"{place} has no document with a token, so that its dimension is unknown. "
                    "Is it the right file, and complete?"
                )
            dimension = int(first.tokens.shape[1])
        self.dimension = dimension

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the documents in order, joined to batches.

        Raises
        ------
        TypeError, ValueError
            For documents of different widths, ids of two kinds, documents without an id beside
            some with one, and numbers that are not finite.
        """
        require_int("max_tokens", max_tokens, 1)
        waiting: list[Document] = []
        tokens, done, named = 0, 0, None
        for document in self.documents():
            self._check(document, done + len(waiting), named)
            named = document.id is not None
            size = document.tokens.shape[0] if document.tokens.size else 0
            if waiting and (tokens + size > max_tokens or len(waiting) >= max_tokens):
                yield self._join(waiting, done)
                done += len(waiting)
                waiting, tokens = [], 0
            waiting.append(document)
            tokens += size
        if waiting or not done:
            yield self._join(waiting, done)

    def _check(self, document: Document, position: int, named: bool | None) -> None:
        where = f"{self.place}, {document.where}"
        tokens = document.tokens
        if tokens.size and tokens.ndim != 2:
            raise ValueError(
                f"{where}: document {position} has shape {tokens.shape}; each must have shape (tokens, dimension)."
            )
        if tokens.size and tokens.shape[1] != self.dimension:
            raise ValueError(
                f"{where}: document {position} has {tokens.shape[1]} columns, but this source has "
                f"dimension={self.dimension}. All documents must come from the same model."
            )
        if named is not None and named != (document.id is not None):
            has, before = ("an id", "have none") if document.id is not None else ("no id", "have one")
            raise ValueError(
                f"{where}: document {position} has {has}, but those before {before}. "
                "Give every document an id, or none."
            )

    def _join(self, waiting: list[Document], done: int) -> MultiVectors:
        arrays = [document.tokens for document in waiting]
        ids = [document.id for document in waiting]
        kinds = {type(value) for value in ids}
        if len(kinds) > 1:
            found = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise TypeError(
                f"{self.place}: the ids from document {done} on mix kinds ({found}). "
                "Make all of them integers or all of them strings."
            )
        named = None if kinds <= {type(None)} else ids
        # A batch of documents without tokens takes its precision from the others.
        dtype = None if any(array.size for array in arrays) else self._empty_dtype
        batch = MultiVectors.from_arrays(arrays, named, dimension=self.dimension, dtype=dtype)
        return require_finite(batch, self.place, done)
