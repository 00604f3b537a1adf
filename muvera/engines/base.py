"""Engine: the interface of vector databases, and code that all engines share.

An engine stores documents and finds the nearest vectors.  :class:`muvera.engines.EngineIndex` encodes, ranks,
splits into batches and checks arguments.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, ClassVar, Literal
from urllib.parse import SplitResult, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..metadata.filters import COMPARISONS, Filter
from ..metadata.values import bound_name, present_term, value_term
from ..utils.checks import require_int

__all__ = [
    "SCHEMES",
    "Description",
    "Engine",
    "EngineError",
    "GraphSettings",
    "Hits",
    "Metadata",
    "SQLConditions",
    "SearchOptions",
    "folder_of",
    "is_engine_url",
    "open_engine",
    "quoted",
]

#: Ids, best first, and the engine's scores, for each query.
Hits = list[tuple[list[Any], NDArray[np.float32]]]

Precision = Literal["float32", "float16"]

#: Metadata of documents, checked to be JSON values.
Metadata = Sequence[Mapping[str, Any]]

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


class EngineError(ValueError):
    """Error of an engine: no connection, a refusal or unexpected content.  Messages never contain a password."""


@dataclass(frozen=True)
class GraphSettings:
    """Settings of an engine's graph.

    Parameters
    ----------
    m : int
        Links per node.  More raise recall, memory and build time.
    ef_construction : int
        Candidates while building.  More raise recall and build time.
    from_documents : int
        Smaller collections have no graph, which is exact and as fast.  PostgreSQL always builds one.
    """

    m: int = 16
    ef_construction: int = 128
    from_documents: int = 4096

    def __post_init__(self) -> None:
        require_int("m", self.m, 2)
        require_int("ef_construction", self.ef_construction, 4)
        require_int("from_documents", self.from_documents, 1)


@dataclass(frozen=True)
class Description:
    """Properties of a collection, fixed when it was created.

    Parameters
    ----------
    vector_dimension : int
        Floats per vector.
    token_dimension : int
        Columns of a token vector.
    tokens : bool
        True if the engine stores the documents' tokens, in half precision.
    integer_ids : bool
        True if ids are integers, False if they are strings.
    precision : {"float32", "float16"}
        Precision of the stored vectors.
    graph : GraphSettings
    config : str
        Hash of the encoder's configuration.
    encoder : str
        SHA-256 of the fitted encoder.
    text_encoder : str, optional
        Name of the text encoder of a collection with texts.
    """

    vector_dimension: int
    token_dimension: int
    tokens: bool
    integer_ids: bool
    precision: Precision
    graph: GraphSettings
    config: str
    encoder: str
    text_encoder: str | None = None

    @classmethod
    def from_json(cls, content: bytes) -> Description:
        """Read a description written by :meth:`to_json`."""
        values = json.loads(content)
        return cls(**{**values, "graph": GraphSettings(**values["graph"])})

    def to_json(self) -> bytes:
        """Return the description as JSON text."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class SearchOptions:
    """Options of an engine's search.

    Parameters
    ----------
    count : int
        Maximum number of documents per query.
    where : mapping, optional
        A condition on the metadata, see :mod:`muvera.metadata.filters`.
    ids : list of ids, optional
        Search only these documents.
    ef : int
        Candidates that the graph search keeps.
    k : int, optional
        Documents to return after ranking in the engine.
    """

    count: int
    where: Filter | None = None
    ids: list[Any] | None = None
    ef: int = 128
    k: int | None = None


class Engine(ABC):
    """Base class of one collection in a vector database.

    A second collection, ``NAME_encoder``, stores the description (part 0) and the encoder (the other parts).  All
    changes are idempotent, so they can be repeated after a process was killed.

    Parameters
    ----------
    url, name : str
        Location of the collection, without a password.
    secret : str, optional
        A password or key that error messages must not contain.
    """

    kind: ClassVar[str]

    #: True if the engine can store tokens, and if it can rank by them.
    keeps_tokens: ClassVar[bool] = False
    reranks: ClassVar[bool] = False

    #: Precisions of stored vectors with the maximum dimension (None: unlimited); the default first.
    precisions: ClassVar[Mapping[Precision, int | None]] = {"float32": None}

    def __init__(self, url: str, name: str, secret: str | None = None) -> None:
        self.url, self.name, self.location = url, name, f"{url}#{name}"
        self._encoder_name, self._secret = f"{name}_encoder", secret
        #: Set by :meth:`describe` and :meth:`create`; None if the collection does not exist.
        self.description: Description | None = None

    @property
    def stored(self) -> Description:
        """The description of the collection; raises EngineError if it does not exist."""
        if self.description is None:
            raise EngineError(f"{self.location} is empty. Add documents first.")
        return self.description

    @property
    def default_precision(self) -> Precision:
        """The first of ``precisions``."""
        return next(iter(self.precisions))

    def require_dimension(self, floats: int, precision: Precision | None = None) -> None:
        """Raise ValueError if the engine does not accept vectors of this dimension."""
        chosen = precision or self.default_precision
        largest = self.precisions[chosen]
        if largest is not None and floats > largest:
            raise ValueError(
                f"{self.kind} accepts at most {largest} dimensions in {chosen}, got {floats}. Use encoder='moments' or "
                "a smaller configuration."
            )

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn errors of the engine's library into one sentence without the password."""
        try:
            yield
        except EngineError:
            raise
        except Exception as error:
            text = " ".join(str(getattr(error, "message", error)).split()) or type(error).__name__
            text = re.sub(r",? /\S+\.rs:\d+:\d+", "", text)  # positions in the library's source
            if self._secret:
                text = text.replace(self._secret, "***")
            raise EngineError(f"{self.location} {what}: {text[:300].rstrip('.')}.") from None

    # -- the collection -------------------------------------------------------

    def describe(self) -> Description | None:
        """Read the description of the collection; None if the collection does not exist.

        Raises
        ------
        EngineError
            If the engine cannot be reached, or the name belongs to something else.
        """
        with self._errors("cannot be read"):
            names = self._existing_names()
            parts = self._read_parts(0, 1) if self._encoder_name in names else []
        if not parts:
            if self.name in names and self._encoder_name not in names:
                raise EngineError(f"{self.location} was not made by muvera. Give another name.")
            self.description = None
            return None
        with self._errors("cannot be read"):
            self.description = Description.from_json(parts[0])
            change = self._change(names)
        if change is not None:
            raise EngineError(f"{self.location} {change}: the collection was changed. Load it again.")
        return self.description

    @abstractmethod
    def _existing_names(self) -> set[str]:
        """Return those of the two collection names that exist."""

    @abstractmethod
    def _read_parts(self, start: int, stop: int | None) -> list[bytes]:
        """Return parts `start` to `stop` of the encoder collection, in order."""

    @abstractmethod
    def _change(self, names: set[str]) -> str | None:
        """Return what differs between the stored collection and its description, or None."""

    @abstractmethod
    def create(self, description: Description, encoder: bytes) -> None:
        """Create an empty collection that stores the encoder, completely or not at all.

        Raises
        ------
        EngineError
            If the collection exists.
        """

    def read_encoder(self) -> bytes:
        """Return the encoder stored by :meth:`create`."""
        with self._errors("cannot be read"):
            return b"".join(self._read_parts(1, None))

    def finish(self) -> None:  # noqa: B027 (optional)
        """Build or update the graph, if the engine does not do so by itself."""

    @abstractmethod
    def drop(self) -> None:
        """Remove the collection, its encoder and its graph, if they exist."""

    @abstractmethod
    def close(self) -> None:
        """Close connections and files."""

    # -- documents ------------------------------------------------------------

    @abstractmethod
    def add(
        self, ids: list[Any], vectors: NDArray[np.float32], metadata: Metadata, tokens: MultiVectors | None
    ) -> None:
        """Store documents and replace those with the same ids, all of them or none.

        The vectors are float32 (n, vector_dimension); half-precision tokens are given if the collection stores them.
        """

    @abstractmethod
    def delete(self, ids: list[Any]) -> None:
        """Delete documents; unknown ids are ignored."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of documents."""

    def existing(self, ids: list[Any]) -> set[Any]:
        """Return the ids that are in the collection."""
        return {id for id, _ in self._read(ids, "id")}

    def metadata(self, ids: list[Any]) -> dict[Any, dict[str, Any]]:
        """Return the metadata of documents by id, without unknown ids."""
        return dict(self._read(ids, "metadata"))

    def tokens(self, ids: list[Any]) -> MultiVectors:
        """Return the tokens of documents with their ids, in any order and without unknown ids."""
        if not self.stored.tokens:
            raise EngineError(f"{self.location} stores no tokens. Give tokens=MuveraIndex.load(...).")
        return self._texts(self._read(ids, "tokens"))

    def all_tokens(self) -> Iterator[MultiVectors]:
        """Yield the tokens of all documents with their ids, in batches."""
        if not self.stored.tokens:
            raise EngineError(f"{self.location} stores no tokens. Give tokens=MuveraIndex.load(...).")
        for rows in self._token_batches():
            yield self._texts(rows)

    @abstractmethod
    def _read(self, ids: list[Any], column: str) -> Iterable[tuple[Any, Any]]:
        """Return (id, value of "id", "metadata" or "tokens") of the documents that exist."""

    def _token_batches(self) -> Iterator[Iterable[tuple[Any, Any]]]:
        """Yield batches of (id, tokens) of all documents."""
        raise NotImplementedError

    def _texts(self, rows: Iterable[tuple[Any, Any]]) -> MultiVectors:
        width, pairs = self.stored.token_dimension, list(rows)
        arrays = [np.asarray(tokens, np.float16).reshape(-1, width) for _, tokens in pairs]
        return MultiVectors.from_arrays(arrays, ids=[id for id, _ in pairs] or None, dimension=width)

    # -- searching ------------------------------------------------------------

    @abstractmethod
    def search(
        self, vectors: NDArray[np.float32], options: SearchOptions, queries: MultiVectors | None = None
    ) -> Hits:
        """Return the documents with the largest inner products for each query.

        Parameters
        ----------
        vectors : float32 (m, dimension)
            Query vectors.
        options : SearchOptions
        queries : MultiVectors, optional
            Rank the candidates by Chamfer similarity and return the best ``options.k``, if the engine ``reranks``.

        Raises
        ------
        FilterError
            For a condition that this engine cannot answer.
        """

    def size_bytes(self) -> int | None:
        """Return the bytes of documents and graph, or None if the engine does not report them."""
        return None


def encoder_parts(encoder: bytes, size: int = 1 << 20) -> list[bytes]:
    """Split an encoder into parts that fit into one value of an engine."""
    return [encoder[start : start + size] for start in range(0, len(encoder), size)]


def id_batches(ids: list[Any], size: int) -> Iterator[list[Any]]:
    """Split ids into batches of one request."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


def no_hits() -> tuple[list[Any], NDArray[np.float32]]:
    """Return the empty result of one query."""
    return [], np.empty(0, np.float32)


# -- URLs ---------------------------------------------------------------------


def is_engine_url(text: str) -> bool:
    """Return True if a text is the URL of an engine, not a path.

    Examples
    --------
    >>> is_engine_url("postgresql://localhost/search"), is_engine_url("folder/my.index")
    (True, False)
    """
    return text.partition(":")[0] in SCHEMES and ":" in text


def open_engine(url: str) -> Engine:
    """Open the collection of a URL.

    Parameters
    ----------
    url : str
        ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE#NAME``; ``qdrant://HOST:PORT#NAME`` (``qdrants://`` with
        TLS; the key is the password or in ``QDRANT_API_KEY``); ``qdrant-edge:FOLDER#NAME``;
        ``lancedb:FOLDER#NAME``; ``milvus:FILE.db#NAME`` or ``milvus://HOST:PORT#NAME``.  The default NAME is
        "muvera".

    Raises
    ------
    ValueError
        For any other URL.
    EngineError
        If the engine cannot be reached.
    ImportError
        If the engine's client is not installed.
    """
    if not is_engine_url(url):
        raise ValueError(f"An engine's URL must begin with {', '.join(f'{name}:' for name in SCHEMES)}.")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise EngineError(f"The URL of the engine is wrong: {error}.") from None
    name = parts.fragment or "muvera"
    if not _NAME.fullmatch(name):
        raise EngineError(
            f"{name!r} is not a collection name. Use up to 48 letters, digits and underscores, not a digit first."
        )
    module, class_name = SCHEMES[parts.scheme]
    engine: Engine = getattr(import_module(f"muvera.engines.{module}"), class_name).from_url(parts, name)
    return engine


def folder_of(url: SplitResult) -> str:
    """Return the folder of a URL without a host, such as ``lancedb:FOLDER``."""
    path = f"/{url.netloc}{unquote(url.path)}" if url.netloc else unquote(url.path)
    if not path:
        raise EngineError(f"The URL names no folder. Give {url.scheme}:FOLDER.")
    return path


# -- conditions as SQL text ---------------------------------------------------


def quoted(value: Any) -> str:
    """Return a number or a string as an SQL literal.

    Examples
    --------
    >>> quoted("it's")
    "'it''s'"
    """
    if isinstance(value, bool):
        return str(int(value))
    return repr(value) if isinstance(value, (int, float)) else "'" + str(value).replace("'", "''") + "'"


class SQLConditions(ABC):
    """Base class of builders of conditions as text; conditions are never NULL.

    ``and_``, ``or_`` and ``not_`` are the engine's words, and ``always`` and ``never`` its constants.
    """

    always, never = "true", "false"
    and_, or_, not_ = "AND", "OR", "NOT"

    def all_of(self, parts: list[str]) -> str:
        """Combine conditions with "and"."""
        return f"({f' {self.and_} '.join(parts)})" if parts else self.always

    def any_of(self, parts: list[str]) -> str:
        """Combine conditions with "or"."""
        return f"({f' {self.or_} '.join(parts)})" if parts else self.never

    def negation(self, part: str) -> str:
        """Negate a condition."""
        return f"({self.not_} {part})"

    def exists(self, field: str) -> str:
        """Test that a field is present and not null."""
        return self.has_any([present_term(field)])

    def any_equal(self, field: str, values: list[Any]) -> str:
        """Test that an element of a field equals one of the values."""
        return self.has_any([value_term(field, value) for value in values]) if values else self.never

    def order(self, field: str, name: str, value: Any) -> str:
        """Compare an element of a field with a value by an order operator."""
        side = "high" if name in ("$gt", "$gte") else "low"
        return self.compare(side, bound_name(field, value), COMPARISONS[name][0], value)

    @abstractmethod
    def has_any(self, terms: list[str]) -> str:
        """Test that a document has one of the terms."""

    @abstractmethod
    def compare(self, side: str, name: str, sign: str, value: Any) -> str:
        """Compare the "low" or "high" bound of this name with a value."""
