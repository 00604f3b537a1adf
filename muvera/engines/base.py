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
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import first_parts, repeats_before
from ..fde.encoder import FDEEncoder
from ..fde.files import load_encoder
from ..metadata import Filter, FlatMetadata, build_condition, flatten, is_utf8
from ..utils.hints import Argument, Hint, Message
from .conditions import Conditions

#: First-stage vectors, one per row.
Vectors = NDArray[np.float32]

#: The id of a document, and the number of its part, counted from 0.
Key = tuple[Any, int]

#: Rows, best first, and the engine's scores, for each query.
Hits = list[tuple[list[Key], Sequence[float]]]

#: What an engine stores for each row.
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

# Names that other programs may have given: no paths, which could leave a folder.
_FOREIGN_NAME = re.compile(r"[^./\\][^/\\]{0,254}")

# Ids of one read, deletion or condition, which lists all of them.
_IDS = 500

# Bytes of one part of an encoder: a part fits into a value of every engine.
_PART_BYTES = 1 << 20


class EngineError(ValueError):
    """Error of an engine: no connection, a rejected request, wrong content.

    Messages never contain a password.
    """


@dataclass(frozen=True)
class Description:
    """Properties of a collection, fixed when it was created, and its calibration.

    It is stored in the collection as JSON, by the names of these fields.
    """

    #: Floats of a first-stage vector.
    vector_dimension: int
    #: Floats of a token vector.
    token_dimension: int
    #: True if the engine stores tokens, in half precision.
    tokens: bool
    #: True if ids are integers, False if they are strings.
    integer_ids: bool
    #: SHA-256 of the fitted encoder.
    encoder: str
    #: Name of the encoder of texts or pages, "" if pages have none.  None for other
    #: documents.
    text_encoder: str | None = None
    #: Calibrated number of candidates for each mean recall; empty without a
    #: calibration.
    candidates_by_recall: list[tuple[float, int]] = field(default_factory=list)
    #: True if a document has several parts.  None if rows have no part numbers: the
    #: engine cannot store them, or an older version of muvera made the collection.
    parts: bool | None = None
    #: Folder of the documents of pages, "" if it is not known.  None if the documents
    #: are not pages.
    pages: str | None = None


class AddReport(NamedTuple):
    """Numbers of documents of one addition.

    Parameters
    ----------
    added : int
        Documents that were written, new ones and replaced ones.
    skipped : int
        Documents whose ids are in use, with ``resume=True``.
    without_tokens : int
        Documents that no search could find, which are not stored.
    """

    added: int = 0
    skipped: int = 0
    without_tokens: int = 0

    def plus(self, other: AddReport) -> AddReport:
        """Return the sums of two reports.

        Parameters
        ----------
        other : AddReport
            The report of another addition.

        Returns
        -------
        AddReport
        """
        return AddReport(
            self.added + other.added,
            self.skipped + other.skipped,
            self.without_tokens + other.without_tokens,
        )

    def to_dict(self) -> dict[str, int]:
        """Return plain values.

        Returns
        -------
        dict of str to int
            Numbers by field.
        """
        return self._asdict()


class EngineInfo(NamedTuple):
    """Facts about a collection.

    Parameters
    ----------
    engine : str
        Name of the engine, such as "pgvector".
    location : str
        The URL without the password.
    documents : int
        Number of documents.
    description : Description or None
        None if the collection does not exist.
    """

    engine: str
    location: str
    documents: int
    description: Description | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values.

        Returns
        -------
        dict
            Values by field; the description is a dict or None.
        """
        return {**self._asdict(), "description": self.description and asdict(self.description)}


class EngineRow(NamedTuple):
    """A document to write, or one of its parts."""

    id: Any  #: An integer or a string, as in ``Description.integer_ids``.
    vector: Vectors  #: (vector_dimension,)
    metadata: dict[str, Any]
    flat: FlatMetadata  #: The metadata in the form that conditions test.
    tokens: NDArray[np.float16] | None  #: None if the collection stores no tokens.
    part: int = 0  #: Later parts have no metadata, but the same `flat`.


@dataclass(frozen=True)
class SearchRequest:
    """A search for the rows with the largest inner products."""

    #: (n, vector_dimension)
    vectors: Vectors
    #: Rows that the vectors find for each query.
    limit: int
    #: The token vectors of the queries, by which the engine ranks these rows.
    #: Default: keep the order of the vectors.
    queries: MultiVectors | None = None
    #: With `queries`: rows that the engine returns.
    k: int | None = None
    #: Search only documents whose metadata satisfy this condition.
    where: Filter | None = None
    #: Search only documents with one of these ids.
    ids: list[Any] | None = None

    @property
    def breadth(self) -> int:
        """Number of candidates that a graph search keeps: at least 128."""
        return max(128, self.limit)


class Engine(ABC):
    """Base class of a collection in a vector database.

    A second collection, ``NAME_encoder``, stores the description (part 0) and the
    encoder (the other parts).  All changes can be repeated after a process was killed.

    A row is a part of a document.  A document exists once it has a part 0.

    :func:`open_engine` describes the URL.  The constructor raises EngineError if the
    URL is invalid or the engine cannot be reached, and ImportError if the engine's
    client is not installed.

    Attributes
    ----------
    name : str
        Name of the collection.
    location : str
        The URL without password and query, for messages.
    """

    #: Name of the engine.
    kind: ClassVar[str]
    #: True if the engine can store tokens.
    keeps_tokens: ClassVar[bool] = True
    #: True if a document can have several parts.
    keeps_parts: ClassVar[bool] = True
    #: True if the engine can rank by the tokens that it stores.
    reranks: ClassVar[bool] = False
    #: Maximum dimension of stored vectors.
    max_dimension: ClassVar[float] = math.inf
    #: True if another program made the collection, which may have any name.
    foreign: ClassVar[bool] = False
    #: Number of documents from which LanceDB and Qdrant build a graph; a search without
    #: a graph is exact.
    graph_from = 4096
    #: Links per node of a graph.  More raise recall, and take memory and time.
    links = 16
    #: Candidates for the links of a new node.  More raise recall, and slow additions.
    ef_construction = 128

    def __init__(self, url: str) -> None:
        parts = _split(url, self.foreign)
        self.name = parts.fragment
        self._encoder_name = f"{parts.fragment}_encoder"
        self._secret = unquote(parts.password or "") or None
        user, _, server = parts.netloc.rpartition("@")
        user = user.partition(":")[0]
        #: The URL without the password.
        self._url = parts._replace(netloc=f"{user}@{server}" if user else server)
        self.location = self._url._replace(query="").geturl()
        self._closed = False
        self._description: Description | None = None
        self._encoder: FDEEncoder | None = None

    @property
    @abstractmethod
    def conditions(self) -> Conditions[Any]:
        """The builder of conditions in the engine's language."""

    @property
    def description(self) -> Description | None:
        """The description that :meth:`describe` read or :meth:`create` wrote.

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

    @property
    def takes_parts(self) -> bool:
        """True if documents of the collection can have several parts."""
        stored = self.description
        return self.keeps_parts if stored is None else stored.parts is not None

    def require_dimension(self, floats: int) -> None:
        """Raise ValueError if the engine accepts only vectors of fewer floats."""
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

        Refuse a closed engine.  `what` is the predicate of that sentence.
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
        """Read the description, or return None if the collection does not exist.

        Raise EngineError if muvera did not make the collection, or it cannot be read.
        """
        self._description = None
        self._encoder = None
        with self._errors("cannot be read"):
            part = self._read_part(0) if self._is_ours() else None
            if part is None:
                return None
            try:
                stored = Description(**json.loads(part))
            except TypeError:
                raise EngineError(
                    f"{self.location} was filled by another version of muvera. Load the documents under "
                    "another name."
                ) from None
            if not self._has_collection(self.name):
                raise EngineError(f"{self.location} has lost its documents. Drop it, and load them again.")
            self._open()
        self._description = stored
        return stored

    def create(
        self,
        encoder: FDEEncoder,
        tokens: bool,
        integer_ids: bool,
        text_encoder: str | None,
        pages: str | None = None,
    ) -> None:
        """Create an empty collection, and store a fitted encoder beside it.

        Ids are integers or strings.  `text_encoder` and `pages` are fields of
        :class:`Description`.  Raise EngineError if the collection exists or cannot be
        created.
        """
        if self.describe() is not None:
            raise EngineError(f"{self.location} exists. Give another name, or drop it.")
        self.drop()  # leftovers of an interrupted creation
        content = _to_bytes(encoder)
        config = encoder.config
        description = Description(
            config.vector_dimension, config.dimension, tokens, integer_ids, _hash(content), text_encoder,
            parts=False if self.keeps_parts else None, pages=pages,
        )  # fmt: skip
        with self._errors("cannot be created"):
            self._create(description)
            for number, part in enumerate(slices(content, _PART_BYTES), 1):
                self._write_part(number, part)
        self.change_description(description)  # last: without it, a collection does not exist
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
            expected = self.stored.encoder
            parts: list[bytes] = []
            with self._errors("cannot be read"):
                while (part := self._read_part(1 + len(parts))) is not None:  # 0 is the description
                    parts.append(part)
            self._encoder = _from_bytes(b"".join(parts), expected, self.location)
        return self._encoder

    def has_encoder(self, encoder: FDEEncoder) -> bool:
        """Return True if a fitted encoder equals the stored encoder."""
        return _hash(_to_bytes(encoder)) == self.stored.encoder

    def drop(self) -> None:
        """Remove the collection, its encoder and its graph, if they exist."""
        with self._errors("cannot be removed"):
            self._is_ours()
            # The encoder's collection marks the name as ours, so it is removed last.
            for name in (self.name, self._encoder_name):
                self._drop(name)
        self._description = None
        self._encoder = None

    def _is_ours(self) -> bool:
        """Return True if the collection exists.

        Raise EngineError if it belongs to something else.
        """
        ours = self.is_filled_by_muvera()
        if not ours and self._has_collection(self.name):
            raise EngineError(f"{self.location} was not made by muvera. Give another name.")
        return ours

    def is_filled_by_muvera(self) -> bool:
        """Return True if the encoder that muvera stores beside documents exists."""
        return self._has_collection(self._encoder_name)

    @abstractmethod
    def _has_collection(self, name: str) -> bool:
        """Return True if one of the two collections exists."""

    def _open(self) -> None:
        """Open the collection's files."""
        return  # a server opens them itself

    @abstractmethod
    def _create(self, description: Description) -> None:
        """Create both collections, the encoder's first."""

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
        """Build or update the graph."""
        return  # most engines do so by themselves

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
        """Store documents and replace documents with the same ids, all of them or none.

        `texts` has their ids and token vectors, which the collection stores only if
        ``stored.tokens``.  Texts with the same id are the parts of a document.
        `vectors` are the stored encoder's, one for each text.  `metadata` has an entry
        for each document.

        Raise ValueError for tokens that half precision cannot represent, and
        EngineError if the engine fails or does not accept a document.
        """
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
        later = repeats_before(texts.ids)
        owners = np.cumsum(~later) - 1
        parts = np.arange(len(texts)) - first_parts(later)
        flat = list(map(flatten, metadata))
        rows = [
            EngineRow(id, vector, {} if part else dict(metadata[owner]), flat[owner], halves_of_one, part)
            for id, vector, owner, halves_of_one, part in zip(
                texts.ids.tolist(), vectors, owners.tolist(), tokens, parts.tolist(), strict=True
            )
        ]
        if later.any() and not self.stored.parts:
            self.change_description(replace(self.stored, parts=True))
        with self._errors("did not accept documents"):
            # Part 0 is written last, because then the document exists.
            self._write(sorted(rows, key=lambda row: -row.part))

    def delete(self, ids: list[Any], first: int = 0) -> None:
        """Delete documents, or only their parts from `first` on.

        Unknown ids are ignored.
        """
        if first and self.stored.parts is None:
            return
        with self._errors("did not delete documents"):
            for group in self._in_groups(ids):
                self._delete(group, first)

    def __len__(self) -> int:
        """Return the number of documents."""
        with self._errors("cannot be read"):
            return self._count()

    def ids(self, where: Filter) -> list[Any]:
        """Return the ids of documents that satisfy a condition, in the order of ids.

        Numbers in strings count as numbers, so page 2 comes before page 10.  Raise
        FilterError for a condition that is invalid, or that the engine cannot answer.
        """
        condition = build_condition(where, self.conditions)
        if condition is False:
            return []
        with self._errors("cannot be read"):
            ids = self._ids(None if condition is True else condition)
            return sorted(ids, key=_in_order)

    def read(self, ids: list[Any], column: Column, part: int = 0) -> dict[Any, Any]:
        """Return the values of a column by id, of one part of each document.

        Documents without this part are skipped.
        """
        values: dict[Any, Any] = {}
        if part and self.stored.parts is None:
            return values
        with self._errors("cannot be read"):
            for group in self._in_groups(ids):
                values.update(self._read(group, column, part))
        return values

    def tokens(self, ids: list[Any]) -> MultiVectors:
        """Return the token vectors of documents, all of their parts, with their ids.

        They are in the order of `ids`; unknown ids are skipped.  Raise EngineError if
        the collection stores no tokens.
        """
        self._require_tokens()
        by_part: list[dict[Any, Any]] = []
        left = ids
        while left:
            by_part.append(self.read(left, "tokens", len(by_part)))
            left = [id for id in left if id in by_part[-1]]
        keys = [(id, part) for id in ids for part, values in enumerate(by_part) if id in values]
        arrays = [self._halves(by_part[part][id]) for id, part in keys]
        names = [id for id, _ in keys] or None
        return MultiVectors.from_arrays(arrays, ids=names, dimension=self.stored.token_dimension)

    def tokens_of_rows(self, keys: Iterable[Key]) -> dict[Key, NDArray[np.float16]]:
        """Return the token vectors of rows; unknown rows are skipped.

        Raise EngineError if the collection stores no tokens.
        """
        self._require_tokens()
        ids_by_part: dict[int, list[Any]] = {}
        for id, part in keys:
            ids_by_part.setdefault(part, []).append(id)
        return {
            (id, part): self._halves(value)
            for part, ids in ids_by_part.items()
            for id, value in self.read(ids, "tokens", part).items()
        }

    def _require_tokens(self) -> None:
        if not self.stored.tokens:
            raise EngineError(f"{self.location} stores no tokens. Give tokens=MuveraIndex.load(...).")

    def _halves(self, value: Any) -> NDArray[np.float16]:
        return np.asarray(value, np.float16).reshape(-1, self.stored.token_dimension)

    def _in_groups(self, ids: list[Any]) -> Iterator[list[Any]]:
        """Yield at most 500 ids at a time.

        Skip ids that no document can have: of another type, or not UTF-8.
        """
        kind = int if self.stored.integer_ids else str
        return slices([id for id in ids if type(id) is kind and is_utf8(str(id))], _IDS)

    @abstractmethod
    def _write(self, rows: list[EngineRow]) -> None:
        """Store rows and replace rows with the same ids and parts, all or none."""

    @abstractmethod
    def _delete(self, ids: list[Any], first: int) -> None:
        """Delete the parts of at most 500 documents, from `first` on.

        `first` is 0 if ``stored.parts`` is None.
        """

    @abstractmethod
    def _count(self) -> int:
        """Return the number of documents."""

    @abstractmethod
    def _ids(self, condition: Any) -> Iterable[Any]:
        """Return the ids of documents that satisfy a condition of the engine.

        None: of all documents.
        """

    @abstractmethod
    def _read(self, ids: list[Any], column: Column, part: int) -> Iterable[tuple[Any, Any]]:
        """Return (id, value) of one part of at most 500 documents.

        `part` is 0 if ``stored.parts`` is None.
        """

    # -- searching ------------------------------------------------------------

    def search(self, request: SearchRequest) -> Hits:
        """Return the best rows and their scores for each query.

        Raise FilterError for a condition that is invalid, or that the engine cannot
        answer, and EngineError if the engine fails.
        """
        conditions = self.conditions
        parts = [build_condition(request.where, conditions)] if request.where else []
        if request.ids is not None:
            groups = self._in_groups(request.ids)
            parts.append(conditions.any_of([conditions.among(group) for group in groups]))
        condition = conditions.all_of(parts)
        if condition is False:
            return [([], [])] * len(request.vectors)
        with self._errors("cannot be searched"):
            hits = self._search(request, None if condition is True else condition)
        if not self.stored.parts and any(part for keys, _ in hits for _, part in keys):
            # Another process has added documents with several parts.
            self._description = replace(self.stored, parts=True)
        return hits

    @abstractmethod
    def _search(self, request: SearchRequest, condition: object) -> Hits:
        """Search the rows that satisfy a condition of the engine's language.

        None: all rows.
        """


def _in_order(id: int | str) -> Any:
    """Return the key by which ids are ordered; numbers in strings count as numbers."""
    if isinstance(id, int):
        return id
    parts = re.split("([0-9]+)", id)  # every second part is a number
    numbers = [digits.lstrip("0") for digits in parts[1::2]]
    parts[1::2] = [(len(digits), digits) for digits in numbers]
    return parts, id


class _Sliceable(Protocol):
    """A sequence whose slices are sequences of the same kind."""

    def __len__(self) -> int: ...

    def __getitem__(self: _Values, part: slice, /) -> _Values: ...


_Values = TypeVar("_Values", bound=_Sliceable)


def slices(values: _Values, size: int) -> Iterator[_Values]:
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

    Returns
    -------
    Engine
        Connected.  The collection may not exist yet.

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


def _split(url: str, foreign: bool) -> SplitResult:
    """Return the parts of a URL, with the name of the collection as fragment.

    A `foreign` collection may have any name that is not a path.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for an invalid port
    except ValueError:
        # The library's message can contain a part of the password.
        raise EngineError(
            "The engine's URL must have a valid host and port. Give "
            "SCHEME://USER:PASSWORD@HOST:PORT#NAME, and write %2F, %3F, %23 and %40 for the characters / "
            "? # and @ in a password."
        ) from None
    name = parts.fragment or "muvera"
    if not (_FOREIGN_NAME if foreign else _NAME).fullmatch(name):
        raise EngineError(
            f"{name!r} is not a collection name. Use at most 48 letters, digits and underscores, and "
            "begin with a letter or an underscore."
        )
    return parts._replace(fragment=name)


def folder_of(url: SplitResult) -> str:
    """Return the folder of a URL without a host, such as ``lancedb:FOLDER``.

    Raise EngineError for a URL without a folder.
    """
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
            f"The encoder in {place} has the checksum {_hash(content)[:16]}, but its documents were "
            f"encoded by {expected[:16]}: it was changed or is incomplete. Load the documents again."
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
