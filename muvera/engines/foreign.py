"""Collections of token vectors that other programs made, and their engines' searches.

Each class reads the token vectors, and runs the search of the engine with the settings
of the engine.  Nothing is written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..reranking.chamfer import chamfer_matrix
from ..utils.atomic_files import read_json
from ..utils.checks import import_extra
from .base import SCHEMES, Engine, EngineError
from .lancedb import LanceDBEngine
from .milvus import MilvusEngine
from .pgvector import PgVectorEngine
from .qdrant import QdrantEdgeEngine, QdrantEngine

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models

# Usual names of a token's document, in a row for each token.
_DOCUMENT = ("doc_id", "document_id", "docid", "document", "page_id")


class Remedy(NamedTuple):
    """Settings that may raise the recall, and what to do if they do."""

    settings: dict[str, Any]
    advice: str


class ForeignCollection(ABC):
    """Base class of collections that other programs made.

    Attributes
    ----------
    location : str
        The URL without password, for messages.
    cosine : bool
        True if the engine compares tokens by cosine, False by inner product.
    usual : dict
        Settings of a search, with the defaults of the engine or of its tutorial.
    """

    location: str
    foreign: ClassVar[bool] = True
    cosine: bool = False
    usual: ClassVar[Mapping[str, Any]] = {}

    @abstractmethod
    def documents(self) -> MultiVectors:
        """Return the token vectors of all documents, with their ids."""

    @abstractmethod
    def find(self, query: NDArray[np.float32], k: int, settings: Mapping[str, Any]) -> list[Any]:
        """Return the ids of the engine's `k` best documents, best first.

        `query` has the shape (tokens, dimension).  `settings` has the names of
        :attr:`usual` and of the remedies.
        """

    @abstractmethod
    def remedies(self) -> list[Remedy]:
        """Return settings that may raise the recall, the cheapest first."""

    @abstractmethod
    def end(self) -> None:
        """Close the connection."""

    def with_settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the usual settings with changes, such as ``{"hnsw_ef": 64}``.

        Raise ValueError for an unknown name.
        """
        known = {**self.usual, **{key: None for remedy in self.remedies() for key in remedy.settings}}
        for name in settings:
            if name not in known:
                raise ValueError(
                    f"{self.location} has no search setting {name!r}. The settings are: "
                    f"{', '.join(sorted(known))}."
                )
        return {**self.usual, **settings}


class ForeignQdrant(ForeignCollection, QdrantEngine):
    """A collection with a multivector, on a server: its graph, and quantization."""

    usual: ClassVar[Mapping[str, Any]] = {
        "hnsw_ef": None,
        "exact": False,
        "rescore": None,
        "oversampling": None,
    }

    def __init__(self, url: str, client: QdrantClient | None = None) -> None:
        super().__init__(url, client)
        with self._errors("cannot be read"):
            _require_foreign(self)
            self._prepare()

    def _prepare(self) -> None:
        parameters = self._client.get_collection(self.name).config
        vectors = parameters.params.vectors
        named = vectors if isinstance(vectors, dict) else {"": vectors}
        found = self._choose({name: params.multivector_config for name, params in named.items()})
        self.cosine = "cosine" in str(named[found].distance).lower()
        self._quantized = bool(parameters.quantization_config or named[found].quantization_config)

    def _choose(self, vectors: Mapping[str, Any]) -> str:
        multi = [name for name, config in vectors.items() if config]
        if len(multi) != 1:
            raise EngineError(
                f"{self.location} must have one multivector, but it has {len(multi)}: "
                f"{', '.join(map(repr, multi)) or 'only single vectors'}."
            )
        self._field_name = multi[0]
        return multi[0]

    def documents(self) -> MultiVectors:
        """Return the token vectors of all documents, with their ids."""
        ids = []
        arrays = []
        with self._errors("cannot be read"):
            for point in self._scroll(None, False, True):
                vectors = point.vector
                value = vectors.get(self._field_name) if isinstance(vectors, dict) else vectors
                ids.append(point.id)
                arrays.append(np.asarray(value, np.float32))
        return _collected(self.location, arrays, ids)

    def find(self, query: NDArray[np.float32], k: int, settings: Mapping[str, Any]) -> list[Any]:
        """Search with ``query_points``, see :meth:`ForeignCollection.find`."""
        models = self.models
        quantization = None
        if settings["rescore"] is not None or settings["oversampling"] is not None:
            quantization = models.QuantizationSearchParams(
                rescore=settings["rescore"], oversampling=settings["oversampling"]
            )
        params = models.SearchParams(
            hnsw_ef=settings["hnsw_ef"], exact=bool(settings["exact"]), quantization=quantization
        )
        with self._errors("cannot be searched"):
            return [point.id for point in self._points(query, k, params)]

    def _points(self, query: NDArray[np.float32], k: int, params: models.SearchParams) -> Iterable[Any]:
        using = self._field_name or None
        found = self._client.query_points(
            self.name, query=query.tolist(), using=using, limit=k, search_params=params
        )
        return list(found.points)

    def remedies(self) -> list[Remedy]:
        """Return settings that may raise the recall, the cheapest first."""
        wider = Remedy({"hnsw_ef": 512}, "search the graph with hnsw_ef=512")
        rescored = Remedy(
            {"rescore": True, "oversampling": 4.0},
            "score the candidates of the quantized vectors by the original ones, with rescore=true and "
            "oversampling=4",
        )
        exact = Remedy({"exact": True}, "search without the graph (exact=true), or build it with more links")
        return [wider, *([rescored] if self._quantized else []), exact]

    def end(self) -> None:
        """Close the connection."""
        self._close()


class ForeignQdrantEdge(ForeignQdrant, QdrantEdgeEngine):
    """A collection with a multivector, in a folder of Qdrant Edge: ``FOLDER/NAME``."""

    def _prepare(self) -> None:
        edge = import_extra("qdrant_edge", "qdrant-edge", "Qdrant Edge")
        file = self._folder / "edge_config.json"
        if not file.is_file():
            raise EngineError(_why_no_shard(self._folder))
        config = read_json(file)
        vectors = config.get("vectors", {})
        found = self._choose({name: params.get("multivector_config") for name, params in vectors.items()})
        self.cosine = vectors[found]["distance"] == "Cosine"
        self._quantized = bool(config.get("quantization_config") or vectors[found].get("quantization_config"))
        self._shard = edge.EdgeShard.load(str(self._folder))

    def _points(self, query: NDArray[np.float32], k: int, params: models.SearchParams) -> Iterable[Any]:
        request = self.models.QueryRequest(
            query=query.tolist(), using=self._field_name, limit=k, params=params
        )
        return list(self._shard.query(request))


class ForeignLanceDB(ForeignCollection, LanceDBEngine):
    """A table with a column of vector lists, which LanceDB compares by cosine."""

    cosine = True
    usual: ClassVar[Mapping[str, Any]] = {"nprobes": None, "refine_factor": None, "exact": False}

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._open_table()

    def _open_table(self) -> None:
        with self._errors("cannot be read"):
            _require_foreign(self)
            if not self._has_collection(self.name):
                raise EngineError(f"{self.location} does not exist. Give lancedb:FOLDER#TABLE.")
            self._open()
        pa = self._pa
        lists = [
            field.name
            for field in self._table.schema
            if pa.types.is_list(field.type) and pa.types.is_fixed_size_list(field.type.value_type)
        ]
        self._column = _only(lists, "a column of lists of vectors", self.location)
        self._id = "id" if "id" in self._table.schema.names else None

    def documents(self) -> MultiVectors:
        """Return the token vectors of all documents, with their ids."""
        columns = [self._column, *([self._id] if self._id else [])]
        with self._errors("cannot be read"):
            table = self._table.search().select(columns).with_row_id(True).limit(None).to_arrow()
        ids = table[self._id or "_rowid"].to_pylist()
        return MultiVectors.from_arrow(table[self._column], ids)

    def find(self, query: NDArray[np.float32], k: int, settings: Mapping[str, Any]) -> list[Any]:
        """Search the column of vector lists, see :meth:`ForeignCollection.find`."""
        with self._errors("cannot be searched"):
            search = self._table.search(query, vector_column_name=self._column).distance_type("cosine")
            if settings["exact"]:
                search = search.bypass_vector_index()
            if settings["nprobes"] is not None:
                search = search.nprobes(settings["nprobes"])
            if settings["refine_factor"] is not None:
                search = search.refine_factor(settings["refine_factor"])
            columns = ["_distance", *([self._id] if self._id else [])]
            found = search.select(columns).with_row_id(True).limit(k).to_arrow()
        return list(found[self._id or "_rowid"].to_pylist())

    def remedies(self) -> list[Remedy]:
        """Return settings that may raise the recall, the cheapest first."""
        refined = "score more candidates by the original vectors, with refine_factor=10"
        probed = "read more partitions and score more candidates, with nprobes=100 and refine_factor=20"
        return [
            Remedy({"refine_factor": 10}, refined),
            Remedy({"nprobes": 100, "refine_factor": 20}, probed),
            Remedy({"exact": True}, "search without the index (bypass_vector_index), or build a finer one"),
        ]

    def end(self) -> None:
        """Close the connection."""
        self._close()


class ForeignMilvus(ForeignCollection, MilvusEngine):
    """A collection with a row for each token, and a field that names its document.

    Milvus's tutorial searches it like this: each query token finds its nearest rows,
    and the documents of these rows are ranked by all of their tokens.
    """

    usual: ClassVar[Mapping[str, Any]] = {"rows": 50, "rescore": True, "ef": None, "nprobe": None}

    def __init__(self, url: str) -> None:
        super().__init__(url)
        with self._errors("cannot be read"):
            _require_foreign(self)
            if not self._has_collection(self.name):
                raise EngineError(f"{self.location} does not exist. Give milvus:FILE.db#NAME.")
            fields = {field["name"]: field for field in self._client.describe_collection(self.name)["fields"]}
            kinds = self._library.DataType
            vectors = [name for name, field in fields.items() if field["type"] == kinds.FLOAT_VECTOR]
            self._vector = _only(vectors, "a field of vectors", self.location)
            documents = [name for name in _DOCUMENT if name in fields]
            self._document = _only(documents[:1], f"a field {' or '.join(_DOCUMENT)}", self.location)
            names = self._client.list_indexes(self.name)
            indexes = [self._client.describe_index(self.name, name) for name in names]
            of_vector = [index for index in indexes if index and index.get("field_name") == self._vector]
            self._metric = of_vector[0]["metric_type"] if of_vector else "COSINE"
        self.cosine = self._metric == "COSINE"
        self._tokens: MultiVectors | None = None

    def documents(self) -> MultiVectors:
        """Return the token vectors of all documents, with their ids."""
        if self._tokens is None:
            rows: dict[Any, list[Any]] = {}
            fields = [self._document, self._vector]
            with self._errors("cannot be read"):
                reader = self._client.query_iterator(
                    self.name, filter="", output_fields=fields, batch_size=1000
                )
                while batch := reader.next():
                    for row in batch:
                        rows.setdefault(row[self._document], []).append(row[self._vector])
                reader.close()
            arrays = [np.asarray(tokens, np.float32) for tokens in rows.values()]
            self._tokens = _collected(self.location, arrays, list(rows))
        return self._tokens

    def find(self, query: NDArray[np.float32], k: int, settings: Mapping[str, Any]) -> list[Any]:
        """Search as in Milvus's tutorial, see :meth:`ForeignCollection.find`."""
        params = {name: settings[name] for name in ("ef", "nprobe") if settings[name] is not None}
        with self._errors("cannot be searched"):
            found = self._client.search(
                self.name,
                query.tolist(),
                anns_field=self._vector,
                limit=int(settings["rows"]),
                search_params={"metric_type": self._metric, "params": params},
                output_fields=[self._document],
            )
        best: dict[Any, dict[int, float]] = {}
        for token, hits in enumerate(found):
            for hit in hits:
                by_token = best.setdefault(hit["entity"][self._document], {})
                by_token[token] = max(by_token.get(token, -np.inf), hit["distance"])
        scores = {id: sum(by_token.values()) for id, by_token in best.items()}
        if settings["rescore"] and scores:
            documents = self.documents()
            position = {id: row for row, id in enumerate(documents.ids.tolist())}
            chosen = documents[np.array(sorted(position[id] for id in scores))]
            exact = chamfer_matrix([query], chosen)[0]
            scores = dict(zip(chosen.ids.tolist(), exact.tolist(), strict=True))
        return sorted(scores, key=lambda id: -scores[id])[:k]

    def remedies(self) -> list[Remedy]:
        """Return settings that may raise the recall, the cheapest first."""
        return [
            Remedy({"rescore": True}, "rank the found documents by all of their tokens"),
            Remedy(
                {"rows": 500, "rescore": True},
                "find 500 rows for each query token instead of 50, and rank their documents by all of "
                "their tokens",
            ),
            Remedy(
                {"rows": 1000, "rescore": True, "ef": 2000, "nprobe": 1000},
                "search more widely, with limit=1000, ef=2000 and nprobe=1000",
            ),
        ]

    def end(self) -> None:
        """Close the connection."""
        self._close()


class ForeignPgVector(ForeignCollection, PgVectorEngine):
    """A table with a column ``vector[]``, and the SQL that searches it."""

    usual: ClassVar[Mapping[str, Any]] = {"sql": None, "ef_search": None, "probes": None, "exact": False}

    def __init__(self, url: str) -> None:
        super().__init__(url)
        with self._errors("cannot be read"):
            _require_foreign(self)
            columns = self._rows_of(
                "SELECT column_name, udt_name FROM information_schema.columns WHERE table_name = %s "
                "AND table_schema = ANY (current_schemas(false))",
                [self.name],
            )
            arrays = [name for name, kind in columns if kind in ("_vector", "_halfvec")]
            self._column = _only(arrays, "a column of the type vector[] or halfvec[]", self.location)
            self._id = (
                "id"
                if "id" in dict(columns)
                else _only(
                    [name for name, _ in columns if name.endswith("id")][:1], "a column id", self.location
                )
            )
            functions = self._rows_of(
                "SELECT proname FROM pg_proc WHERE proname IN ('max_sim', 'maxsim', 'chamfer')", []
            )
        self._function = functions[0][0] if functions else None
        self._table = _quoted(self.name)
        self._column = _quoted(self._column)
        self._id = _quoted(self._id)

    def _rows_of(
        self,
        sql: str,
        values: Sequence[object] | Mapping[str, object],
        local: Mapping[str, Any] = MappingProxyType({}),
    ) -> list[Any]:
        """Return the rows of a query that changes nothing, with its settings."""
        with self._transaction() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
            for name, value in local.items():
                cursor.execute(f"SET LOCAL {name} = {value}")
            return list(cursor.execute(sql, values or None).fetchall())

    def documents(self) -> MultiVectors:
        """Return the token vectors of all documents, with their ids."""
        ids = []
        arrays = []
        with self._errors("cannot be read"):
            for id, texts in self._rows_of(
                f"SELECT {self._id}, {self._column}::text[] FROM {self._table} ORDER BY {self._id}", []
            ):
                ids.append(id)
                rows = [np.fromstring(text[1:-1], np.float32, sep=",") for text in texts or ()]
                arrays.append(np.array(rows, np.float32))
        return _collected(self.location, arrays, ids)

    def find(self, query: NDArray[np.float32], k: int, settings: Mapping[str, Any]) -> list[Any]:
        """Search with SQL, see :meth:`ForeignCollection.find`.

        The setting "sql" has the places %(query)s (an array of vectors), %(mean)s
        (their mean) and %(k)s.
        """
        sql = settings["sql"]
        if sql is None and self._function is None:
            raise EngineError(
                f"{self.location} has no function max_sim, so its search is unknown. Give the SQL that you "
                "search with as the setting sql: SELECT id ... %(query)s ... LIMIT %(k)s."
            )
        sql = sql or (
            f"SELECT {self._id} FROM {self._table} ORDER BY {self._function}({self._column}, "
            "%(query)s::vector[]) DESC LIMIT %(k)s"
        )
        vectors = [_literal(row) for row in query]
        array = "{" + ",".join(f'"{vector}"' for vector in vectors) + "}"
        values = {"query": array, "mean": _literal(query.mean(axis=0)), "k": k}
        local = {
            "hnsw.ef_search": settings["ef_search"] and int(settings["ef_search"]),
            "ivfflat.probes": settings["probes"] and int(settings["probes"]),
            "enable_indexscan": "off" if settings["exact"] else None,
        }
        local = {name: value for name, value in local.items() if value is not None}
        with self._errors("cannot be searched"):
            return [row[0] for row in self._rows_of(str(sql), values, local)]

    def remedies(self) -> list[Remedy]:
        """Return settings that may raise the recall, the cheapest first."""
        return [
            Remedy({"ef_search": 400}, "search the graph with hnsw.ef_search = 400"),
            Remedy({"probes": 100}, "read more lists, with ivfflat.probes = 100"),
            Remedy(
                {"exact": True}, "search without the index (enable_indexscan = off), or build a finer one"
            ),
        ]

    def end(self) -> None:
        """Close the connection."""
        self._close()


def _require_foreign(engine: Engine) -> None:
    """Raise EngineError if muvera filled the collection, because it has FDEs then."""
    if engine.is_filled_by_muvera():
        raise EngineError(
            f"{engine.location} was filled by muvera, which finds its documents by FDEs. In Python, measure "
            "their recall with EngineIndex(url).measure_recall(queries)."
        )


def _why_no_shard(folder: Path) -> str:
    """Return why a folder is not a shard of Qdrant Edge, and what to do instead."""
    # The client keeps meta.json and collection/NAME/storage.sqlite.
    places = (folder, folder.parent, folder.parent.parent)
    if any((place / "meta.json").is_file() and (place / "collection").is_dir() for place in places):
        return (
            f"{folder} belongs to Qdrant's client in local mode, which compares a query with every point: "
            "its recall is 1. Give the collection of a server, qdrant://HOST:PORT#NAME."
        )
    if not folder.is_dir():
        return f"{folder} does not exist. Give qdrant-edge:FOLDER#NAME."
    return (
        f"{folder} is not a shard of Qdrant Edge, because it has no edge_config.json. Give "
        "qdrant-edge:FOLDER#NAME for the shard in FOLDER/NAME."
    )


def _collected(location: str, arrays: list[Any], ids: list[Any]) -> MultiVectors:
    """Return documents; raise EngineError if there are none."""
    if not any(array.size for array in arrays):
        raise EngineError(f"{location} has no document with tokens. Give another collection.")
    if len({type(id) for id in ids}) > 1:
        ids = list(map(str, ids))
    return MultiVectors.from_arrays(arrays, ids)


def _only(names: list[str], what: str, location: str) -> str:
    """Return the only name; raise EngineError if there is none or more than one."""
    if len(names) != 1:
        found = f"{len(names)}: {', '.join(names)}" if names else "none"
        raise EngineError(f"{location} must have {what}, but it has {found}.")
    return names[0]


def _quoted(name: str) -> str:
    """Return a name of SQL that may contain any characters."""
    return '"' + name.replace('"', '""') + '"'


def _literal(vector: NDArray[np.float32]) -> str:
    """Return a vector as pgvector writes it."""
    return "[" + ",".join(map(repr, vector.tolist())) + "]"


_CLASSES: dict[str, type[Any]] = {
    "QdrantEngine": ForeignQdrant,
    "QdrantEdgeEngine": ForeignQdrantEdge,
    "LanceDBEngine": ForeignLanceDB,
    "MilvusEngine": ForeignMilvus,
    "PgVectorEngine": ForeignPgVector,
}


def open_foreign(url: str) -> ForeignCollection:
    """Open a collection of token vectors that another program made.

    :func:`muvera.engines.open_engine` describes the URL.  ``qdrant-edge:FOLDER#NAME``
    is the shard in ``FOLDER/NAME``.  Raise ValueError for any other URL or a collection
    without token vectors, and ImportError if the engine's client is not installed.
    """
    scheme, colon, _ = unquote(url).partition(":")
    if not colon or scheme not in SCHEMES:
        raise ValueError(
            f"The URL of a collection must begin with {':, '.join(SCHEMES)}:, got {scheme + colon!r:.40}."
        )
    opened: ForeignCollection = _CLASSES[SCHEMES[scheme][1]](url)
    return opened
