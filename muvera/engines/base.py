"""Engine: the interface of vector databases, and code that all engines share."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..fde.encoder import FDEEncoder
from ..fde.files import load_encoder
from ..metadata import COMPARISONS, Filter, FlatMetadata, bound_name, build_condition, flatten, is_utf8, term
from ..utils.hints import Argument, Hint, Message

Vectors = NDArray[np.float32]

#: Ids, best first, and the engine's scores, for each query.
Hits = list[tuple[list[Any], Sequence[float]]]

Column = Literal["id", "metadata", "tokens"]

#: URL schemes, with the module and class that open them.
SCHEMES: dict[str, tuple[str, str]] = {
    "postgresql": ("pgvector", "PgVectorEngine"),
    "postgres": ("pgvector", "PgVectorEngine"),
    "qdrant": ("qdrant", "QdrantEngine"),
    "qdrants": ("qdrant", "QdrantEngine"),
    "qdrant-edge": ("qdrant", "QdrantEdgeEngine"),
    "lancedb": ("lancedb", "LanceDBEngine"),
    "milvus": ("milvus", "MilvusEngine"),
}

# Collection names that all engines accept.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")

# Number of ids per read or deletion, and bytes of one part of an encoder.
_IDS, _PART_BYTES = 500, 1 << 20


class EngineError(ValueError):
    """Error of an engine: no connection, a rejected request, wrong content.

    Messages never contain a password.
    """


@dataclass(frozen=True)
class Description:
    """Properties of a collection, fixed when it was created, and its calibration."""

    vector_dimension: int
    token_dimension: int
    tokens: bool  #: True if the engine stores tokens, in half precision.
    integer_ids: bool  #: True if ids are integers, False if they are strings.
    encoder: str  #: SHA-256 of the fitted encoder.
    text_encoder: str | None = None
    #: Calibrated number of candidates for each mean recall; empty without a
    #: calibration.
    candidates_by_recall: list[tuple[float, int]] = field(default_factory=list)


class AddReport(NamedTuple):
    """Numbers of documents that were added, that existed already, and that have no tokens."""

    added: int = 0
    skipped: int = 0
    without_tokens: int = 0

    def to_dict(self) -> dict[str, int]:
        """Return plain values."""
        return self._asdict()


class EngineInfo(NamedTuple):
    """Facts about a collection."""

    engine: str
    location: str
    documents: int
    description: Description | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**self._asdict(), "description": self.description and asdict(self.description)}


class Row(NamedTuple):
    """A document to write; `tokens` is None if the collection stores no tokens."""

    id: Any
    vector: Vectors
    metadata: dict[str, Any]
    flat: FlatMetadata
    tokens: NDArray[np.float16] | None


class Search(NamedTuple):
    """A search of the `limit` nearest documents.

    With `queries`, the engine ranks them and returns the best `k`.
    """

    vectors: Vectors
    limit: int
    queries: MultiVectors | None
    k: int

    @property
    def breadth(self) -> int:
        """Number of candidates that a graph search keeps."""
        return max(128, self.limit)


class _Conditions(ABC):
    """Translator of the filter language into an engine's conditions; its own methods write SQL.

    All documents satisfy the condition True, and none satisfies False.  No condition
    may be NULL.
    """

    def all_of(self, parts: list[Any]) -> Any:
        """Combine conditions with "and"."""
        return self._combined("and", parts, True)

    def any_of(self, parts: list[Any]) -> Any:
        """Combine conditions with "or"."""
        return self._combined("or", parts, False)

    def _combined(self, word: str, parts: list[Any], neutral: bool) -> Any:
        kept = [part for part in parts if part is not neutral]
        if any(isinstance(part, bool) for part in kept):
            return not neutral
        return self._join(word, kept) if kept else neutral

    def negation(self, part: Any) -> Any:
        """Negate a condition."""
        return not part if isinstance(part, bool) else self._negate(part)

    def exists(self, field: str) -> Any:
        """Test that a field is present and not null."""
        return self._has_any([term(field)])

    def any_equal(self, field: str, values: list[Any]) -> Any:
        """Test that an element of a field equals one of the values."""
        return self._has_any([term(field, value) for value in values]) if values else False

    def order(self, field: str, name: str, value: Any) -> Any:
        """Compare an element of a field with a value by the operator `name`, such as "$gt"."""
        side = "high" if name in ("$gt", "$gte") else "low"
        return self._compare(f"{side}_{bound_name(field, value)}", COMPARISONS[name], value)

    @abstractmethod
    def _has_any(self, terms: list[str]) -> Any:
        """Test that a document has one of the terms."""

    @abstractmethod
    def _compare(self, bound: str, sign: str, value: Any) -> Any:
        """Compare a value with a stored bound, such as "low_FIELD", by a sign such as ">"."""

    def _join(self, word: str, parts: list[Any]) -> Any:
        return f"({f' {word} '.join(parts)})"

    def _negate(self, part: Any) -> Any:
        return f"(not {part})"

    def _among(self, ids: list[Any]) -> Any:
        """Test that a document has one of these ids."""
        return f"id in ({self._literals(ids)})"

    def _literals(self, values: list[Any]) -> str:
        return ", ".join(map(self._literal, values))

    def _literal(self, value: Any) -> str:
        """Return a number or a string as a literal of SQL."""
        return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


class Engine(_Conditions):
    """Base class of one collection in a vector database.

    A second collection, ``NAME_encoder``, stores the description (part 0) and the
    encoder (the other parts).  All changes can be repeated after a process was killed.
    `location` is the URL without password and query.
    """

    kind: ClassVar[str]
    #: True if the engine can store tokens, and if it can rank by them.
    keeps_tokens: ClassVar[bool] = True
    reranks: ClassVar[bool] = False
    #: Maximum dimension of stored vectors.
    max_dimension: ClassVar[float] = math.inf
    #: Number of documents from which LanceDB and Qdrant build a graph; a search without
    #: one is exact.
    graph_from = 4096
    #: Links per node of a graph, and candidates while building it.
    links, ef_construction = 16, 128

    def __init__(self, url: str) -> None:
        parts = _split(url)
        self.name, self._encoder_name = parts.fragment, f"{parts.fragment}_encoder"
        self._secret = unquote(parts.password or "") or None
        user, _, server = parts.netloc.rpartition("@")
        user = user.partition(":")[0]
        self._url = parts._replace(netloc=f"{user}@{server}" if user else server)  # without the password
        self.location = self._url._replace(query="").geturl()
        self._closed = False
        self._description: Description | None = None
        self._encoder: FDEEncoder | None = None

    @property
    def description(self) -> Description | None:
        """Set by :meth:`describe` and :meth:`create`.

        None if the collection does not exist.
        """
        self._require_open()
        return self._description

    @property
    def stored(self) -> Description:
        """The description of the collection.

        Raises EngineError if it does not exist.
        """
        if self.description is None:
            raise EngineError(f"{self.location} does not exist. Add documents first, or give another name.")
        return self.description

    def require_dimension(self, floats: int) -> None:
        """Raise ValueError if the engine accepts only shorter vectors."""
        if floats > self.max_dimension:
            raise ValueError(
                Message(
                    f"{self.kind} accepts at most {self.max_dimension} dimensions, got {floats}. Use ",
                    Argument("encoder", "'moments'"),
                    " or a smaller configuration.",
                )
            )

    def _require_open(self) -> None:
        if self._closed:
            raise EngineError(f"{self.location} is closed. Open it again with TextIndex.open or EngineIndex.")

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn errors of the engine's library into one sentence without the password.

        Refuse a closed engine.
        """
        self._require_open()
        try:
            yield
        except EngineError:
            raise
        except Exception as error:
            text = " ".join(str(getattr(error, "message", error)).split()) or type(error).__name__
            text = re.sub(r",? /\S+\.rs:\d+:\d+", "", text)  # positions in the library's source
            if self._secret:
                text = text.replace(self._secret, "***")
            text = text[:300].rstrip(".")
            end = "" if text.endswith(("?", "!")) else "."
            raise EngineError(f"{self.location} {what}: {text}{end}") from None

    # -- the collection -------------------------------------------------------

    def describe(self) -> Description | None:
        """Read the description.

        None if the collection does not exist, EngineError if muvera did not make it.
        """
        self._description = self._encoder = None
        with self._errors("cannot be read"):
            part = self._read_part(0) if self._is_ours() else None
            if part is None:
                return None
            try:
                stored = Description(**json.loads(part))
            except TypeError:
                raise EngineError(
                    f"{self.location} was filled by another version of muvera. Load the documents under another name."
                ) from None
            if not self._has_collection(self.name):
                raise EngineError(f"{self.location} has lost its documents. Drop it, and load them again.")
            self._open()
        self._description = stored
        return stored

    def create(self, encoder: FDEEncoder, tokens: bool, integer_ids: bool, text_encoder: str | None) -> None:
        """Create an empty collection with a fitted encoder, or raise EngineError if it exists."""
        if self.describe() is not None:
            raise EngineError(f"{self.location} exists. Give another name, or drop it.")
        self.drop()  # leftovers of an interrupted creation
        content, config = _to_bytes(encoder), encoder.config
        description = Description(
            config.vector_dimension, config.dimension, tokens, integer_ids, _hash(content), text_encoder
        )
        with self._errors("cannot be created"):
            self._create(description)
            for number, part in enumerate(slices(content, _PART_BYTES), 1):
                self._write_part(number, part)
        self.change_description(description)  # last: a collection without one does not exist
        self._encoder = encoder

    def change_description(self, description: Description) -> None:
        """Replace the stored description."""
        with self._errors("cannot be changed"):
            self._write_part(0, json.dumps(asdict(description)).encode())
        self._description = description

    @property
    def encoder(self) -> FDEEncoder:
        """The encoder stored by :meth:`create`; raises ValueError if it was changed."""
        if self._encoder is None:
            expected, numbers = self.stored.encoder, count(1)
            with self._errors("cannot be read"):
                content = b"".join(iter(lambda: self._read_part(next(numbers)), None))
            self._encoder = _from_bytes(content, expected, self.location)
        return self._encoder

    def has_encoder(self, encoder: FDEEncoder) -> bool:
        """Return True if a fitted encoder equals the stored one."""
        return _hash(_to_bytes(encoder)) == self.stored.encoder

    def drop(self) -> None:
        """Remove the collection, its encoder and its graph, if they exist."""
        with self._errors("cannot be removed"):
            self._is_ours()
            # The encoder's collection marks the name as ours, so it is removed last.
            for name in (self.name, self._encoder_name):
                self._drop(name)
        self._description = self._encoder = None

    def _is_ours(self) -> bool:
        """Return True if the collection exists.

        Raise EngineError if it belongs to something else.
        """
        ours = self._has_collection(self._encoder_name)
        if not ours and self._has_collection(self.name):
            raise EngineError(f"{self.location} was not made by muvera. Give another name.")
        return ours

    @abstractmethod
    def _has_collection(self, name: str) -> bool:
        """Return True if one of the two collections exists."""

    def _open(self) -> None:
        """Open the collection's files, if it has any."""

    @abstractmethod
    def _create(self, description: Description) -> None:
        """Create both collections, first that of the encoder."""

    @abstractmethod
    def _drop(self, name: str) -> None:
        """Remove one of the two collections, if it exists."""

    @abstractmethod
    def _read_part(self, number: int) -> bytes | None:
        """Return a part from the encoder's collection, or None if it does not exist."""

    @abstractmethod
    def _write_part(self, number: int, content: bytes) -> None:
        """Write or replace a part."""

    def finish(self) -> None:
        """Build or update the graph, if the engine does not do so by itself."""

    def close(self) -> None:
        """Close connections and files."""
        if not self._closed:
            self._closed = True
            self._close()

    @abstractmethod
    def _close(self) -> None:
        """Close connections and files."""

    # -- documents ------------------------------------------------------------

    def add(self, texts: MultiVectors, vectors: Vectors, metadata: list[Mapping[str, Any]]) -> None:
        """Store documents and replace those with the same ids, all of them or none."""
        tokens: Iterable[Any] = [None] * len(texts)
        if self.stored.tokens:
            with np.errstate(over="ignore"):
                halves = texts.tokens.astype(np.float16, copy=False)
            if not np.isfinite(halves).all():
                largest = float(np.abs(texts.tokens).max())
                raise ValueError(
                    Message(
                        "The documents' numbers must be at most 65504, the largest in half precision, got "
                        f"{largest:g}. Scale them, or ",
                        Hint("store_no_tokens", "store no tokens (tokens=None)"),
                        ".",
                    )
                )
            tokens = MultiVectors(halves, texts.offsets)
        documents = [
            Row(id, vector, dict(values), flatten(values), own)
            for id, vector, values, own in zip(texts.ids.tolist(), vectors, metadata, tokens, strict=True)
        ]
        with self._errors("did not accept documents"):
            self._write(documents)

    def delete(self, ids: list[Any]) -> None:
        """Delete documents; unknown ids are ignored."""
        with self._errors("did not delete documents"):
            for group in self._in_groups(ids):
                self._delete(group)

    def __len__(self) -> int:
        """Return the number of documents."""
        with self._errors("cannot be read"):
            return self._count()

    def read(self, ids: list[Any], column: Column) -> dict[Any, Any]:
        """Return the values of a column by id, without unknown ids."""
        values: dict[Any, Any] = {}
        with self._errors("cannot be read"):
            for group in self._in_groups(ids):
                values.update(self._read(group, column))
        return values

    def tokens(self, ids: list[Any]) -> MultiVectors:
        """Return the tokens of documents with their ids, in this order and without unknown ids."""
        if not self.stored.tokens:
            raise EngineError(f"{self.location} stores no tokens. Give tokens=MuveraIndex.load(...).")
        width, values = self.stored.token_dimension, self.read(ids, "tokens")
        known = [id for id in ids if id in values]
        arrays = [np.asarray(values[id], np.float16).reshape(-1, width) for id in known]
        return MultiVectors.from_arrays(arrays, ids=known or None, dimension=width)

    def _in_groups(self, ids: list[Any]) -> Iterator[list[Any]]:
        """Yield at most 500 ids at a time.

        Skip ids that no document can have: of another type, or not UTF-8.
        """
        kind = int if self.stored.integer_ids else str
        return slices([id for id in ids if type(id) is kind and is_utf8(str(id))], _IDS)

    @abstractmethod
    def _write(self, rows: list[Row]) -> None:
        """Store documents and replace those with the same ids, all of them or none."""

    @abstractmethod
    def _delete(self, ids: list[Any]) -> None:
        """Delete at most 500 documents."""

    @abstractmethod
    def _count(self) -> int:
        """Return the number of documents."""

    @abstractmethod
    def _read(self, ids: list[Any], column: Column) -> Iterable[tuple[Any, Any]]:
        """Return (id, value) of at most 500 documents."""

    # -- searching ------------------------------------------------------------

    def search(self, search: Search, where: Filter | None, ids: list[Any] | None) -> Hits:
        """Search documents that satisfy `where` and have one of the ids.

        Raise FilterError for an invalid condition.
        """
        parts = [build_condition(where, self)] if where else []
        if ids is not None:
            parts.append(self.any_of([self._among(group) for group in self._in_groups(ids)]))
        condition = self.all_of(parts)
        if condition is False:
            return [([], [])] * len(search.vectors)
        with self._errors("cannot be searched"):
            return self._search(search, None if condition is True else condition)

    @abstractmethod
    def _search(self, search: Search, condition: Any) -> Hits:
        """Search the documents that satisfy the condition; None: all."""


def slices(values: Any, size: int) -> Iterator[Any]:
    """Yield slices of a sequence with at most `size` elements."""
    return (values[start : start + size] for start in range(0, len(values), size))


# -- URLs ---------------------------------------------------------------------


def open_engine(url: str) -> Engine:
    """Open the collection of a URL.

    Parameters
    ----------
    url : str
        ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE#NAME``;
        ``qdrant://HOST:PORT#NAME`` (``qdrants://`` with TLS; the key is the password or
        in ``QDRANT_API_KEY``); ``qdrant-edge:FOLDER#NAME``; ``lancedb:FOLDER#NAME``;
        ``milvus:FILE.db#NAME`` or ``milvus://HOST:PORT#NAME``.  The default NAME is
        "muvera".

    Raises
    ------
    ValueError
        For any other URL.  EngineError if the engine cannot be reached, or a part of
        the URL is invalid.
    ImportError
        If the engine's client is not installed.
    """
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in SCHEMES:
        raise ValueError(
            f"An engine's URL must begin with {':, '.join(SCHEMES)}:, got {scheme + colon!r:.40}."
        )
    module, class_name = SCHEMES[scheme]
    engine: Engine = getattr(import_module(f"muvera.engines.{module}"), class_name)(url)
    return engine


def _split(url: str) -> SplitResult:
    """Return the parts of a URL with a valid port and the name of a collection as fragment."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for an invalid port
    except ValueError:
        # The library's message can contain a part of the password.
        raise EngineError(
            "The engine's URL must have a valid host and port. Give SCHEME://USER:PASSWORD@HOST:PORT#NAME, and write "
            "%2F, %3F, %23 and %40 for the characters / ? # and @ in a password."
        ) from None
    name = parts.fragment or "muvera"
    if not _NAME.fullmatch(name):
        raise EngineError(
            f"{name!r} is not a collection name. Use at most 48 letters, digits and underscores, and begin with a "
            "letter or an underscore."
        )
    return parts._replace(fragment=name)


def folder_of(url: SplitResult) -> str:
    """Return the folder of a URL without a host, such as ``lancedb:FOLDER``."""
    path = f"/{url.netloc}{unquote(url.path)}" if url.netloc else unquote(url.path)
    if not path:
        raise EngineError(f"The URL must contain a folder. Give {url.scheme}:FOLDER#NAME.")
    return path


# -- the encoder as bytes -----------------------------------------------------


def _to_bytes(encoder: FDEEncoder) -> bytes:
    """Return the files of a fitted encoder after a line with their sizes.

    Equal encoders have equal bytes.
    """
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "encoder"
        encoder.save(folder)
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    sizes = {name: len(content) for name, content in files.items()}
    return json.dumps(sizes).encode() + b"\n" + b"".join(files.values())


def _from_bytes(content: bytes, expected: str, place: str) -> FDEEncoder:
    """Return the encoder of bytes with the checksum `expected`."""
    if _hash(content) != expected:
        raise ValueError(
            f"The encoder in {place} has the checksum {_hash(content)[:16]}, but its documents were encoded by "
            f"{expected[:16]}: it was changed or is incomplete. Load the documents again."
        )
    stream = io.BytesIO(content)
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, size in json.loads(stream.readline()).items():
                (Path(folder) / Path(name).name).write_bytes(stream.read(size))
        except (ValueError, TypeError, AttributeError, OSError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"The encoder in {place} is damaged: {error}. Load the documents again."
            ) from error
        return load_encoder(folder)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
