"""Sources: token vectors of documents, read in batches of bounded size.

Errors that name the file.
"""

from __future__ import annotations

import errno
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..data.batches import token_batches
from ..data.multivectors import MultiVectors
from ..data.validation import Ids, IdsLike, TokenArray, as_ids
from ..utils.hints import Argument, Message, message_of

# -- errors: libraries report damage in many ways, so readers neither catch errors nor
# name their file ----------

#: Sentence for files without token vectors.
IF_TEXTS = (
    "If it contains texts, encode them with your model first, or index them: muvera texts index FILE INDEX "
    "(in Python TextIndex.build)."
)

_FIX = "Copy or export it again."

_MAX_DETAIL_LENGTH = 240

# Padded documents that are read at a time.
_PADDED = 64

_Batch = TypeVar("_Batch")

# Error numbers caused by a file's content, such as a seek to a negative position.
_CONTENT_ERRNOS = (errno.EINVAL, errno.EOVERFLOW)


class ReadError(ValueError):
    """Error of a reader whose message is a sentence for the user.

    It may lack the name of the file.
    """


@contextmanager
def naming_errors(place: str, format: str) -> Iterator[None]:
    """Convert errors of the block to a sentence that names the file or folder `place`.

    ImportError is raised unchanged.  Damage becomes a :class:`ReadError`, whatever a
    library raised for it; system errors keep their class and number.
    """
    try:
        yield
    except ImportError:
        raise
    except BaseException as error:
        # Libraries in Rust report damage as a panic, which is a BaseException.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        named = _named(error, place, format)
        if named is error:
            raise
        raise named from error


def naming_errors_of(batches: Iterator[_Batch], place: str, format: str) -> Iterator[_Batch]:
    """Yield the batches; convert the errors of their iterator, see `naming_errors`."""
    with naming_errors(place, format):
        yield from batches


def _named(error: BaseException, place: str, format: str) -> BaseException:
    """Return the error to raise.

    It is `error` itself if its message is a sentence that names the file.
    """
    text = " ".join(str(error).split())
    number, reason = (error.errno, error.strerror) if isinstance(error, OSError) else (None, None)
    named_before = number is not None or (isinstance(error, MemoryError) and place in text)
    sentence = isinstance(error, ReadError) or type(error) is FileNotFoundError or named_before
    if sentence and reason is None:
        return error if place in text else type(error)(Message(f"{place}: ", message_of(error)))
    if len(text) > _MAX_DETAIL_LENGTH:
        text = f"{text[:_MAX_DETAIL_LENGTH]} ..."
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return MemoryError(
            f"{place} does not fit in the available memory ({text or type(error).__name__}). Give this "
            "process more memory, or check the file: a damaged file can also request too much."
        )
    if isinstance(error, OSError) and reason and number not in _CONTENT_ERRNOS:
        file = str(error.filename or place)
        which = "" if file == place else f" ({file})"
        named = type(error)(f"{place} cannot be read: {reason.rstrip('.')}{which}.")
        named.errno = number
        return named
    if not (isinstance(error, (ValueError, TypeError, OSError)) and text):
        text = f"{type(error).__name__}: {text}"
    detail = text.removesuffix(_FIX).rstrip(" .:")
    return ReadError(f"{place} is damaged, or is not in the format {format!r} ({detail}). {_FIX}")


# -- sources ----------------------------------------------------------------------


class PlaidFacts(NamedTuple):
    """What ColBERT stores beside codes, and a PLAID index is written with again."""

    #: ColBERT's configuration, with the checkpoint.
    config: dict[str, Any]
    #: float (2 ** nbits - 1,)
    cutoffs: NDArray[Any]
    #: float (2 ** nbits,), in the file's dtype.
    weights: NDArray[Any]
    #: The mean absolute residual, float ().
    average: NDArray[Any]


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
    dropped_rows : int
        Padding rows that the batches have skipped so far.
    plaid : PlaidFacts or None
        Of an index of ColBERT.
    """

    name: str
    dimension: int
    num_documents: int | None = None
    num_tokens: int | None = None
    lossy: bool = False
    nbits: int | None = None
    dropped_rows: int = 0
    plaid: PlaidFacts | None = None

    @abstractmethod
    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield whole documents in order.

        Parameters
        ----------
        max_tokens : int
            Tokens per batch; a single document may exceed it.

        Yields
        ------
        MultiVectors
            Either every batch has ids or none has.
        """


class Reader(NamedTuple):
    """A readable format.

    Each module of ``readers/`` lists its formats in ``READERS``.
    """

    #: Name for ``format=``.
    name: str
    #: Return True if a path is in this format; cheap, and never raises.
    matches: Callable[[Path], bool]
    #: Open a path, the only positional parameter.  Its keyword-only parameters are the
    #: reader's options; the first paragraph of its docstring is "Open" and the files
    #: that identify the format.
    open_source: Callable[..., Source]
    #: A source and perhaps options, as after ``muvera convert``.
    example: str
    #: The files that identify the format.  Default: from the docstring of
    #: `open_source`.
    files: str = ""

    @property
    def options(self) -> list[str]:
        """Names of the reader's options."""
        return list(inspect.signature(self.open_source).parameters)[1:]

    @property
    def description(self) -> str:
        """The files that identify the format."""
        if self.files:
            return self.files
        paragraph = (inspect.getdoc(self.open_source) or "").partition("\n\n")[0]
        return " ".join(paragraph.split()).removeprefix("Open ").rstrip(".")


class RowArray(Protocol):
    """Array whose rows are read by slices.

    It can be a memory map, an HDF5 dataset, or LazyRows.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, then the other axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return the rows of a slice, or with these numbers."""


class LazyRows:
    """Float32 rows that are read when they are used.

    `read` returns the rows of a slice, or the rows with some numbers.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self, shape: tuple[int, ...], read: Callable[[slice | NDArray[np.int64]], NDArray[np.float32]]
    ) -> None:
        self.shape = shape
        self.read = read

    def __getitem__(self, key: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        return self.read(key)


class FlatSource(Source):
    """Source over the tokens of all documents in one array (n_tokens, dimension).

    `offsets` (n + 1,) are valid.  Equal external ids follow each other: they belong to
    the parts of a document.  `rows` (n_tokens,) has the row in `tokens` of each token,
    if they are stored in another order.  `name` is the name of the format.
    """

    def __init__(
        self,
        tokens: RowArray,
        offsets: NDArray[np.int64],
        ids: IdsLike | None,
        *,
        name: str,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self.tokens = tokens
        self.rows = rows
        self.name = name
        self.dimension = int(tokens.shape[1])
        self.set_documents(offsets, ids)

    def set_documents(self, offsets: NDArray[np.int64], ids: IdsLike | None) -> None:
        """Set where the documents begin, with valid offsets, and their external ids."""
        self.offsets = offsets
        self.num_documents = len(offsets) - 1
        self.num_tokens = int(offsets[-1])
        self.ids = None if ids is None else as_ids(ids, self.num_documents, parts=True)

    @classmethod
    def of(cls, collection: MultiVectors, name: str) -> FlatSource:
        """Return a source whose batches share memory with a collection."""
        ids = collection.ids if collection.has_ids else None
        return cls(collection.tokens, collection.offsets, ids, name=name)

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the documents; a memory map stays unread until its batch is used."""
        for rows, offsets, ids in self._split(max_tokens):
            # Members of a zip file may be unaligned, which kernels do not accept.
            yield MultiVectors(np.require(self.tokens[rows], requirements="A"), offsets, ids)

    def _split(self, max_tokens: int) -> Iterator[tuple[Any, NDArray[np.int64], Ids | None]]:
        """Yield the rows, offsets and ids of each batch."""
        for start, stop in token_batches(self.offsets, max_tokens):
            bounds = self.offsets[start : stop + 1]
            rows = slice(int(bounds[0]), int(bounds[-1]))
            ids = None if self.ids is None else self.ids[start:stop]
            yield rows if self.rows is None else self.rows[rows], bounds - bounds[0], ids


def choose(
    wanted: str | None, available: Iterable[str], kind: str, option: str, usual: Iterable[str] = ()
) -> str:
    """Return `wanted` if it is available.

    None means the only available name, or else the only one that is among `usual`.
    Messages say what is chosen, `kind`, such as "table", and by which `option`.  Raise
    ReadError if `wanted` is not available, or the choice is not clear.
    """
    names = sorted(available)
    if wanted in names:
        return str(wanted)
    preferred = names if len(names) == 1 else [name for name in usual if name in names]
    if wanted is None and len(preferred) == 1:
        return preferred[0]
    if not names:
        raise ReadError(f"it has no {kind}s. Choose another path.")
    wrong = "" if wanted is None else f"no {kind} {wanted!r}, but "
    raise ReadError(
        Message(f"it has {wrong}the {kind}s {', '.join(names)}. Choose one with ", Argument(option, ""), ".")
    )


class Document(NamedTuple):
    """A document as read from a file."""

    #: Token vectors (t, dimension); any empty array for a document without tokens.
    tokens: TokenArray
    #: Its place in the file, for messages: "line 7".
    where: str
    id: int | str | None = None
    #: Number of padding rows that were dropped.
    dropped: int = 0


class RowSource(Source):
    """Source over documents that are read one at a time.

    `documents` returns an iterator of :class:`Document`; it is called again for each
    further pass.  `ids` replace the ids of the documents.  `num_documents` is None if
    it is not known.  The default `dimension` is the dimension of the first document
    with a token.  Raise ReadError if there is none.
    """

    def __init__(
        self,
        documents: Callable[[], Iterator[Document]],
        *,
        name: str,
        ids: IdsLike | None = None,
        num_documents: int | None = None,
        dimension: int | None = None,
    ) -> None:
        if ids is not None:
            checked = as_ids(ids, len(ids) if num_documents is None else num_documents, parts=True)
            documents = partial(_with_ids, documents, checked.tolist())
        self.documents = documents
        self.name = name
        self.num_documents = num_documents
        head: list[Document] = []
        rest = documents()
        for document in rest:
            head.append(document)
            if document.tokens.size:
                break
        last = head[-1].tokens if head else np.empty((0, 0), np.float32)
        self.dimension = int(last.shape[-1] if dimension is None else dimension)
        if not self.dimension:
            raise ReadError(
                "it has no document with a token, so its dimension is unknown. Export a document with tokens."
            )
        # Batches without any token get the precision of the others.
        self._empty_dtype = last.dtype
        self._begun: Iterator[Document] | None = chain(head, rest)

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the documents in batches."""
        documents, self._begun = self._begun or self.documents(), None
        waiting: list[Document] = []
        waiting_tokens = self.dropped_rows = 0
        kind: type | None = None
        for position, document in enumerate(documents):
            kind = kind or type(document.id)
            size = self._checked(document, position, kind)
            if waiting and (waiting_tokens + size > max_tokens or len(waiting) >= max_tokens):
                yield self._join(waiting)
                waiting = []
                waiting_tokens = 0
            waiting.append(document)
            waiting_tokens += size
            self.dropped_rows += document.dropped
        yield self._join(waiting)

    def _checked(self, document: Document, position: int, kind: type) -> int:
        """Return the number of a document's tokens.

        `kind` is the type of the first id.
        """
        where = f"{document.where}: document {position}"
        tokens = document.tokens
        if type(document.id) is not kind:
            raise ReadError(
                f"{where} has the id {document.id!r} of type {type(document.id).__name__}, but the first has "
                f"type {kind.__name__}. Give all documents integers, all strings, or no ids."
            )
        if not tokens.size:
            return 0
        if tokens.ndim != 2 or tokens.shape[1] != self.dimension:
            raise ReadError(
                f"{where} has shape {tokens.shape}, but must have shape (tokens, dimension) with the "
                f"source's dimension={self.dimension}. All documents must come from the same model."
            )
        return len(tokens)

    def _join(self, waiting: list[Document]) -> MultiVectors:
        arrays = [document.tokens for document in waiting]
        ids = [document.id for document in waiting if document.id is not None]
        dtype = None if any(array.size for array in arrays) else self._empty_dtype
        named = ids if ids and len(ids) == len(waiting) else None
        return MultiVectors.from_arrays(arrays, named, dimension=self.dimension, dtype=dtype)


def unpadded(padded: RowArray, mask: RowArray | None) -> Iterator[tuple[TokenArray, int]]:
    """Yield the tokens of each text of a padded array, and the number of padding rows.

    `padded` is (n, longest, dimension).  `mask` (n, longest) is True for real tokens;
    None: rows of zeros are padding.
    """
    count, longest, _ = padded.shape
    for start in range(0, count, _PADDED):
        block = slice(start, start + _PADDED)  # of a memory map, perhaps
        for tokens in MultiVectors.from_padded(padded[block], None if mask is None else mask[block]):
            yield tokens, longest - len(tokens)


def _with_ids(documents: Callable[[], Iterator[Document]], ids: list[Any]) -> Iterator[Document]:
    """Yield the documents with these ids, one for each."""
    count = 0
    for count, document in enumerate(documents(), 1):
        if count > len(ids):
            raise ValueError(f"ids has {len(ids)} entries, but there are more texts; give one per text.")
        yield Document(document.tokens, document.where, ids[count - 1], document.dropped)
    if count < len(ids):
        raise ValueError(f"ids has {len(ids)} entries for {count} texts; give one per text.")
