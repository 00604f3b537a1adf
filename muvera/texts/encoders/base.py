"""TextEncoder: the interface of late-interaction models, with helpers for all."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...metadata import is_utf8
from ...reranking.coded_vectors import CodedVectors
from ...reranking.table_codec import TableCodec
from ...utils.hints import Argument, Message
from .windows import Reader, Window, join_spans, join_windows, windows_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TextSide = Literal["document", "query"]

# Texts between two progress reports.
_BATCH = 64

# Fewer texts are split into tokens one by one.
_FEW = 16

_SURROGATE = "A text has a lone surrogate. Decode it again with errors='replace'."

#: Texts that are encoded together as rows of a table.
ROWS_BATCH = 4096


class ScoreWeights(NamedTuple):
    """Weights of the parts of a text's score; the rest is the weight of similarity.

    The weights of an encoder without ``score_weights`` are the defaults.  The sections
    "Weights from other collections" of docs/results/texts.md compare them with others.
    """

    words: float = 0.2  #: Words that query and text share.
    mean: float = 0.2  #: Cosine of the mean token vectors of query and text.


def score_weights(encoder: object) -> ScoreWeights:
    """Return the weights that an encoder names, or the default ones."""
    weights: ScoreWeights = getattr(encoder, "score_weights", ScoreWeights())
    return weights


def first_stage(encoder: object) -> str | None:
    """Return the default ``vectors`` of an index with this encoder, if it has one."""
    vectors: str | None = getattr(encoder, "first_stage", None)
    return vectors


# The constructor of a Protocol takes *args and **kwargs, which need no Parameters.
@runtime_checkable
class Encoder(Protocol):  # numpydoc ignore=PR01
    """What encoders of texts and of pages have in common.

    Attributes
    ----------
    name : str
        Identifies everything that changes the vectors, such as checkpoint and
        revision.  An index requires it.
    """

    name: str

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as queries.

        Parameters
        ----------
        texts : sequence of str
            The queries.  Some may be blank, and there may be none.

        Returns
        -------
        MultiVectors
            One set of token vectors for each text, in order, without ids.
        """
        ...


@runtime_checkable
class TextEncoder(Encoder, Protocol):  # numpydoc ignore=PR01
    """A late-interaction model that turns texts into token vectors.

    Attributes
    ----------
    name : str
        Identifies everything that changes the vectors, such as checkpoint and
        revision.  An index requires it.
    """

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as documents.

        Parameters
        ----------
        texts : sequence of str
            The documents.  Some may be blank.

        Returns
        -------
        MultiVectors
            One set of token vectors for each text, in order, without ids.
        """
        ...

    def token_spans(self, text: str, side: TextSide) -> list[tuple[int, int]] | None:
        """Return the characters of each token vector, for explanations and sentences.

        Parameters
        ----------
        text : str
            The document or the query.
        side : {"document", "query"}
            How the text is encoded.

        Returns
        -------
        list of (start, stop), or None
            One for each token vector; special tokens have start == stop.  None if the
            model does not return them.
        """
        return None


class ModelEncoder(TextEncoder):
    """Base class of text encoders whose model returns one matrix for each text."""

    @abstractmethod
    def matrices(self, texts: list[str], side: TextSide) -> Iterable[Any]:
        """Return the token vectors of each text.

        Parameters
        ----------
        texts : list of str
            The documents or the queries; at least one.
        side : {"document", "query"}
            Encode the texts as documents or as queries.

        Returns
        -------
        iterable of float32 or float16 (tokens, dimension)
            Arrays or tensors, one for each text, in order.
        """

    def window_spans(self, text: str, side: TextSide) -> list[tuple[int, int]] | None:
        """Return the characters of each token vector of one window.

        Parameters
        ----------
        text : str
            A document or query that the model reads whole, or a window of one.
        side : {"document", "query"}
            How the text is encoded.

        Returns
        -------
        list of (start, stop), or None
            As for :meth:`TextEncoder.token_spans`.
        """
        return None

    def reader(self, side: TextSide) -> Reader | None:
        """Return how much of a text the model reads.

        Parameters
        ----------
        side : {"document", "query"}
            How texts are encoded.

        Returns
        -------
        Reader or None
            Longer texts are encoded in windows.  None: the model reads whole texts, or
            its limit is not known.
        """
        return None

    def is_long(self, text: str, side: TextSide) -> bool:
        """Return True if a text is encoded in more than one window.

        Parameters
        ----------
        text : str
            The document or the query.
        side : {"document", "query"}
            How the text is encoded.

        Returns
        -------
        bool
        """
        return len(windows_of(text, self.reader(side))) > 1

    def token_spans(self, text: str, side: TextSide) -> list[tuple[int, int]] | None:
        """Return the characters of each token vector, in all windows.

        Parameters
        ----------
        text : str
            The document or the query.
        side : {"document", "query"}
            How the text is encoded.

        Returns
        -------
        list of (start, stop), or None
            As for :meth:`TextEncoder.token_spans`.
        """
        windows = windows_of(text, self.reader(side))
        spans = [self.window_spans(text[window.start : window.stop], side) for window in windows]
        known = [own for own in spans if own is not None]
        return join_spans(windows, known) if len(known) == len(spans) else None

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as documents, in order.

        Parameters
        ----------
        texts : sequence of str
            The documents; there may be none.

        Returns
        -------
        MultiVectors
            One set of token vectors for each text, in order, without ids.
        """
        return self._encode(list(texts), "document")

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as queries, in order.

        Parameters
        ----------
        texts : sequence of str
            The queries; there may be none.

        Returns
        -------
        MultiVectors
            One set of token vectors for each text, in order, without ids.
        """
        return self._encode(list(texts), "query")

    def _encode(self, texts: list[str], side: TextSide) -> MultiVectors:
        if not all(map(is_utf8, texts)):
            raise ValueError(_SURROGATE)
        read = texts or ["a"]  # without texts, one is encoded to learn the dimension
        reader = self.reader(side)
        windows = [windows_of(text, reader) for text in read]
        pieces = [
            text[own.start : own.stop] for text, parts in zip(read, windows, strict=True) for own in parts
        ]
        matrices = self.matrices(pieces, side)
        if len(pieces) > len(read):
            matrices = self._joined(matrices, windows, iter(pieces), side)
        return MultiVectors.from_arrays(matrices, name="matrices")[: len(texts)]

    def _joined(
        self, matrices: Iterable[Any], windows: list[list[Window]], pieces: Iterator[str], side: TextSide
    ) -> Iterator[Any]:
        """Yield one matrix for each text, from the matrices of its windows."""
        left = iter(matrices)
        for own in windows:
            parts, texts = list(islice(left, len(own))), list(islice(pieces, len(own)))
            long = len(own) > 1
            yield join_windows(
                parts, own, [self.window_spans(text, side) if long else None for text in texts]
            )


class TableEncoder(ModelEncoder):
    """Base class of encoders whose document tokens are rows of one table.

    An index stores the numbers of the rows, two bytes for each token, and ranks all
    texts exactly.

    Parameters
    ----------
    table : float32 (rows, dimension)
        The vectors of document tokens.
    """

    # The best weights over eight collections, see docs/results/texts.md.
    score_weights = ScoreWeights(words=0.4, mean=0.2)
    # For an index of token vectors: needs no long fit.
    first_stage: str | None = "mean"
    #: A longer text is ranked by its best passage of this many tokens.
    passage: int = 256

    def __init__(self, table: NDArray[np.float32]) -> None:
        #: The codec of the table.
        self.codec = TableCodec.of_table(table)

    @property
    def table(self) -> NDArray[np.float32]:
        """The vectors of document tokens, float32 (rows, dimension)."""
        return self.codec.table

    @abstractmethod
    def document_rows(self, texts: list[str]) -> Iterable[Any]:
        """Return the rows of the table of each text.

        Parameters
        ----------
        texts : list of str
            The documents.

        Returns
        -------
        iterable of int (tokens,)
            One sequence for each text, in order.
        """

    @abstractmethod
    def query_matrices(self, texts: list[str]) -> Iterable[Any]:
        """Return the token vectors of each query.

        Parameters
        ----------
        texts : list of str
            The queries.

        Returns
        -------
        iterable of float32 (tokens, dimension)
            One array for each text, in order.
        """

    def matrices(self, texts: list[str], side: TextSide) -> Iterable[Any]:
        """Return the token vectors of each text.

        Parameters
        ----------
        texts : list of str
            The documents or the queries.
        side : {"document", "query"}
            Encode the texts as documents or as queries.

        Returns
        -------
        iterable of float32 (tokens, dimension)
            One array for each text, in order.
        """
        if side == "query":
            return self.query_matrices(texts)
        return [self.table[np.asarray(rows, np.int64)] for rows in self.document_rows(texts)]


class NoEncoder(ModelEncoder):
    """Placeholder for the encoder of an index if nothing is encoded.

    Encoding raises ValueError.

    Parameters
    ----------
    name : str
        Name of the encoder that it replaces.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name

    def matrices(self, texts: list[str], side: TextSide) -> Iterable[Any]:
        """Raise ValueError; the message names the encoder that is needed."""
        raise ValueError(
            Message(
                f"Texts must be encoded by {self.name!r}. Open the index with ", Argument("encoder", ""), "."
            )
        )


class CachedEncoder(ModelEncoder):
    """A text encoder that stores vectors in a file.

    An interrupted build can then resume, and a second build encodes nothing again.

    Parameters
    ----------
    encoder : TextEncoder
        Encodes texts that are not in the file.
    path : path
        An SQLite file, created if it does not exist.  Several encoders may share it.
        It holds all vectors as they were returned: 4 bytes for each float32.

    Raises
    ------
    OSError
        If the file cannot be opened or written.
    """

    def __init__(self, encoder: TextEncoder, path: str | os.PathLike[str]) -> None:
        self.name = encoder.name
        self.score_weights = score_weights(encoder)
        self.first_stage = first_stage(encoder)
        self.encoder = encoder
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._naming_errors():
            self._connection = sqlite3.connect(path, check_same_thread=False)
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, dtype TEXT, columns INTEGER, "
                "content BLOB)"
            )

    def __len__(self) -> int:
        """Return the number of cached texts."""
        return int(self._connection.execute("SELECT count(*) FROM vectors").fetchone()[0])

    def close(self, *, keep: bool = True) -> None:
        """Close the file.

        Parameters
        ----------
        keep : bool
            Delete the file if this is False.  An empty file is always deleted.
        """
        keep = keep and len(self) > 0
        self._connection.close()
        if not keep:
            self._path.unlink()

    def __del__(self) -> None:
        # Python 3.13 warns about unclosed connections.
        if hasattr(self, "_connection"):
            self._connection.close()

    def matrices(self, texts: list[str], side: TextSide) -> list[Any]:
        """Return the stored vectors of each text, after encoding and storing new texts.

        Parameters
        ----------
        texts : list of str
            The documents or the queries.  Texts that are not in the file are encoded.
        side : {"document", "query"}
            Encode the texts as documents or as queries, which have separate vectors.

        Returns
        -------
        list of float32 or float16 (tokens, dimension)
            One array for each text, in order.  Arrays from the file are read-only.

        Raises
        ------
        OSError
            If the vectors of new texts cannot be written.
        """
        keys = [hashlib.sha256(f"{self.name}\0{side}\0{text}".encode()).digest() for text in texts]
        matrices = {key: self._read(key) for key in set(keys)}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if matrices[key] is None}
        if missing:
            encode = self.encoder.encode_queries if side == "query" else self.encoder.encode_documents
            new = dict(zip(missing, map(np.ascontiguousarray, encode(list(missing.values()))), strict=True))
            rows = [(key, array.dtype.str, array.shape[1], array.tobytes()) for key, array in new.items()]
            with self._naming_errors(), self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)
            matrices.update(new)
        return [matrices[key] for key in keys]

    def token_spans(self, text: str, side: TextSide) -> list[tuple[int, int]] | None:
        """Return the characters of each token vector, as the wrapped encoder does.

        Parameters
        ----------
        text : str
            The document or the query.
        side : {"document", "query"}
            How the text is encoded.

        Returns
        -------
        list of (start, stop), or None
            As for :meth:`muvera.texts.encoders.base.TextEncoder.token_spans`.
        """
        return self.encoder.token_spans(text, side)

    def reader(self, side: TextSide) -> Reader | None:
        """Return how much of a text the wrapped encoder reads.

        Parameters
        ----------
        side : {"document", "query"}
            How texts are encoded.

        Returns
        -------
        Reader or None
            None if the wrapped encoder has no known limit.
        """
        return self.encoder.reader(side) if isinstance(self.encoder, ModelEncoder) else None

    def _encode(self, texts: list[str], side: TextSide) -> MultiVectors:
        # Whole texts are stored: the wrapped encoder makes the windows.
        return MultiVectors.from_arrays(self.matrices(texts or ["a"], side), name="matrices")[: len(texts)]

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OSError(
                f"{self._path} cannot store encoded texts: {error}. Check the disk and its permissions, "
                "and that no other process uses the file."
            ) from error

    def _read(self, key: bytes) -> NDArray[Any] | None:
        row = self._connection.execute(
            "SELECT dtype, columns, content FROM vectors WHERE key = ?", (key,)
        ).fetchone()
        return None if row is None else np.frombuffer(row[2], np.dtype(row[0])).reshape(-1, row[1])


def as_texts(texts: object, name: str = "texts") -> list[str]:
    """Return a string or a collection of strings as a list.

    Raise TypeError for anything else; `name` is the argument's name, for the message.
    """
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Iterable) or isinstance(texts, Mapping):
        raise TypeError(f"{name} must be a string or strings, got {type(texts).__name__}.")
    strings = list(texts)
    for i, text in enumerate(strings):
        if not isinstance(text, str):
            raise TypeError(
                f"{name}[{i}] must be a string, got {type(text).__name__}. Token vectors belong in a "
                "MuveraIndex."
            )
    return strings


def encode_texts(encode: Callable[[Sequence[str]], MultiVectors], texts: Sequence[str]) -> MultiVectors:
    """Encode texts in order with a method of an encoder, without ids.

    `encode` is ``encode_documents`` or ``encode_queries`` of a text encoder.  The
    vectors of blank texts are dropped: they are special tokens, which are slightly
    similar to every query.

    Raise ValueError for a text that UTF-8 cannot encode, or an encoder that does not
    return one set of vectors for each text.
    """
    _require_utf8(texts)
    encoded = encode(texts)
    if len(encoded) != len(texts):
        raise ValueError(
            f"The encoder returned {len(encoded)} sets of vectors for {len(texts)} texts. Each text "
            "needs one."
        )
    encoded.require_finite("The encoder's texts")
    kept = np.array([bool(text.strip()) for text in texts], bool)
    if kept.all():  # nothing to drop, so nothing is copied
        return MultiVectors(encoded.tokens, encoded.offsets)
    return MultiVectors.from_flat(encoded.tokens[np.repeat(kept, encoded.lengths)], encoded.lengths * kept)


def table_encoder(encoder: object) -> TableEncoder | None:
    """Return the encoder with a table, which may be within a CachedEncoder, or None."""
    inner = encoder.encoder if isinstance(encoder, CachedEncoder) else encoder
    return inner if isinstance(inner, TableEncoder) else None


def encode_rows(encoder: TableEncoder, texts: Sequence[str], codec: TableCodec) -> CodedVectors:
    """Encode texts as rows of the encoder's table, without ids and without floats.

    Blank texts have no tokens.  `codec` is the codec of the index, with the encoder's
    table.

    Raise ValueError for a text that UTF-8 cannot encode, an encoder that does not
    return one list of rows for each text, or a row beyond the table.
    """
    _require_utf8(texts)
    filled = [text for text in texts if text.strip()]
    rows = list(encoder.document_rows(filled)) if filled else []
    if len(rows) != len(filled):
        raise ValueError(
            f"The encoder returned {len(rows)} lists of rows for {len(filled)} texts. Each text needs one."
        )
    lengths = np.zeros(len(texts), np.int64)
    lengths[[bool(text.strip()) for text in texts]] = [len(own) for own in rows]
    numbers = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
    return CodedVectors.from_lengths(codec, codec.codes(numbers), lengths)


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of the tokens of each text, by the package tokenizers."""
    if len(texts) < _FEW:  # a batch wakes threads, which takes longer
        return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    # Without positions in the text, which tokenizers before 0.20 cannot leave out.
    encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
    return [encoding.ids for encoding in encode(list(texts), add_special_tokens=False)]


def _require_utf8(texts: Sequence[str]) -> None:
    if not all(map(is_utf8, texts)):
        raise ValueError(_SURROGATE)


def count_long(encoder: TextEncoder, texts: Iterable[str], side: TextSide = "document") -> int:
    """Return the number of texts that are encoded in more than one window.

    It is 0 for an encoder that is not a :class:`ModelEncoder`.
    """
    return sum(encoder.is_long(text, side) for text in texts) if isinstance(encoder, ModelEncoder) else 0


def passage_length(encoder: TextEncoder) -> int | None:
    """Return the number of tokens of a passage, by which long texts are ranked.

    Return None if the encoder does not state how much of a text it reads.
    """
    reader = encoder.reader("document") if isinstance(encoder, ModelEncoder) else None
    return None if reader is None else reader.passage


def token_spans(encoder: TextEncoder, text: str, side: TextSide, count: int) -> list[tuple[int, int]]:
    """Return the characters of each of a text's `count` token vectors.

    Raise ValueError if the encoder does not return the characters of all of them.
    """
    spans = encoder.token_spans(text, side)
    if spans is None:
        raise ValueError(
            f"The encoder {encoder.name} does not return the characters of its tokens, which explanations "
            "and sentences need. Search whole texts, or use another encoder."
        )
    if len(spans) != count:
        raise ValueError(
            f"token_spans of the encoder {encoder.name} must return one pair for each of the {count} token "
            f"vectors of a {side}, got {len(spans)} for {text[:40]!r}. Correct the encoder; if it has "
            "changed since the text was added, update the text."
        )
    return spans


def encode_rows_in_batches(
    encoder: TableEncoder,
    texts: Sequence[str],
    ids: Sequence[int | str],
    progress: Callable[[int], object] | None = None,
) -> Iterator[CodedVectors]:
    """Yield texts as rows of the encoder's table, :data:`ROWS_BATCH` at a time.

    After each batch, call `progress` with the number of texts in it.
    """
    for start in range(0, len(texts), ROWS_BATCH):
        batch = texts[start : start + ROWS_BATCH]
        yield encode_rows(encoder, batch, encoder.codec).with_ids(ids[start : start + ROWS_BATCH])
        if progress is not None:
            progress(len(batch))


def encode_in_batches(
    encode: Callable[[Sequence[str]], MultiVectors],
    texts: Sequence[str],
    ids: Sequence[int | str],
    progress: Callable[[int], object] | None = None,
) -> Iterator[MultiVectors]:
    """Yield the token vectors of 64 texts at a time.

    `encode` is ``encode_documents`` of a text encoder, and there is one id for each
    text.  After each batch, call `progress` with the number of texts in it.
    """
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        yield encode_texts(encode, batch).with_ids(ids[start : start + _BATCH])
        if progress is not None:
            progress(len(batch))
