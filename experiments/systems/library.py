"""Systems of this library: the index, and its first stage alone."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from muvera import FDEEncoder, IndexSettings, MultiVectors, MuveraIndex
from muvera.fde.config import _PARAMETERS as PARAMETERS
from muvera.fde.config import _STEPS as STEPS
from muvera.fde.config import DEFAULT_PRESET, PRESETS, FDEConfig
from muvera.fde.moments import default_blocks
from muvera.mips import make_search
from muvera.mips.settings import HNSWSettings
from muvera.reranking.chamfer import carve_queries
from muvera.utils.checks import import_extra

from ..known_names import require_known
from .base import Answers, Material, Ranked, System, arguments_of, timed_search
from .insertion_order import Order, insertion_order

#: Parameters that a configuration may set; dimension and seed come from the runner.
_PARAMETERS = [*STEPS, *PARAMETERS]

# Kinds of search by faiss, links of its graphs on each level (twice on the lowest), and
# candidates of a vector that is added.
_FAISS, _LINKS, _EF_CONSTRUCTION = ("pq", "graph", "pq_graph"), 16, 200

_SETTINGS = [setting.name for setting in fields(IndexSettings)]


def encoder_config(preset: str, dimension: int, seed: int, changes: dict[str, Any]) -> FDEConfig:
    """Return a preset with changed parameters.

    Raise ValueError with the nearest name for an unknown one.
    """
    require_known(preset, PRESETS, "preset")
    for name in changes:
        require_known(name, _PARAMETERS, "argument of the encoder")
    return FDEConfig.preset(preset, dimension, seed=seed, **changes)


class _LibrarySystem(System):
    """Base class of systems with a preset and parameters of any encoder."""

    def __init__(self, preset: str, changes: dict[str, Any]) -> None:
        encoder_config(preset, 128, 0, changes)  # raises for wrong names and values before anything is built
        self._preset, self._changes = preset, changes

    @staticmethod
    def open_arguments() -> Iterable[str]:
        """Return the names of the encoders' parameters."""
        return _PARAMETERS

    def config(self, material: Material) -> FDEConfig:
        """Return the encoder's configuration for the collection."""
        return encoder_config(self._preset, material.documents.dimension, material.seed, self._changes)


class Muvera(_LibrarySystem):
    """:class:`muvera.MuveraIndex`: candidates by vectors, exact Chamfer ranking.

    `build` has fields of :class:`muvera.IndexSettings` and parameters of the preset's
    configuration. `exact_tokens` is 0 unlike in the index: small collections are also
    searched through vectors.
    """

    name: ClassVar[str] = "muvera"

    def __init__(self, *, preset: str = DEFAULT_PRESET, **build: Any) -> None:
        settings = {name: build.pop(name) for name in _SETTINGS if name in build}
        super().__init__(preset, build)
        self._settings = IndexSettings(**{"exact_tokens": 0, **settings})
        # With codes alone, scores are computed from decoded tokens.
        has_codes = self._settings.tokens not in (None, "float32", "float16")
        self.chamfer = self._settings.keep_exact or not has_codes

    @staticmethod
    def open_arguments() -> Iterable[str]:
        """Return the names of the settings and of the encoders' parameters."""
        return [*_SETTINGS, *_LibrarySystem.open_arguments()]

    def build(self, material: Material) -> None:
        """Encode all documents and index their vectors; save and load the index.

        Only the build is timed.  Users search indexes that they load.
        """
        super().build(material)
        config = self.config(material)
        start = time.perf_counter()
        built = MuveraIndex.build(self.documents, config, settings=self._settings, threads=self.threads)
        self.build_seconds = time.perf_counter() - start
        folder = Path(tempfile.mkdtemp(dir=material.folder)) / "index"
        built.save(folder)
        self._index = MuveraIndex.load(folder)

    def search(
        self,
        queries: MultiVectors,
        k: int,
        *,
        candidates: int = 100,
        ef: int | None = None,
        recall: float | None = None,
        rescore: int | None = None,
    ) -> Answers:
        """Search as users do."""
        how: dict[str, Any] = {"candidates": max(k, candidates)} if recall is None else {"recall": recall}
        how |= {"ef": ef, "rescore": rescore, "threads": self.threads}

        def answer(_: int, query: MultiVectors) -> Ranked:
            ranking = self._index.search(query, k, **how)[0]
            return np.asarray(ranking.ids, np.int64), ranking.scores

        return timed_search(queries, k, answer)

    def add(self, documents: MultiVectors) -> None:
        """Add documents to the index."""
        self._index.add(documents, threads=self.threads)

    def token_bytes_per_document(self) -> float:
        """Return the bytes of stored tokens: codes and exact tokens together."""
        info = self._index.info()
        codec = info.token_codec
        per_token = float(codec["bytes_per_token"]) + float(codec["exact_bytes_per_token"])
        return per_token * info.tokens / info.documents

    def bytes_per_document(self) -> float:
        """Return the bytes of a stored vector and, with a graph, of its links."""
        vectors = self._index.info().vectors
        return float(vectors["bytes_per_vector"]) if vectors else 0.0


class FirstStage(_LibrarySystem):
    """The first stage alone: documents by the inner products of their vectors.

    `search` is "exact", "scan" or "hnsw" as in :func:`muvera.mips.make_search`, or "pq"
    for faiss with one byte for every `pq_floats` floats (MUVERA, section 3.2:
    PQ-256-G).  "graph" and "pq_graph" are faiss's graphs of floats and of such codes.
    `order` is the order in which vectors are added: "given", "random", or
    by "rising_dimension" or "falling_dimension", the local intrinsic dimension.
    `floats` keeps only the first floats of each vector.  An FDE keeps its default
    coefficients if `fit_coefficients` is false.
    """

    name: ClassVar[str] = "fde"

    def __init__(
        self,
        *,
        preset: str = DEFAULT_PRESET,
        search: Literal["exact", "scan", "hnsw", "pq", "graph", "pq_graph"] = "exact",
        pq_floats: int = 8,
        hnsw: dict[str, int] | None = None,
        order: Order = "given",
        floats: int | None = None,
        fit_coefficients: bool = True,
        **changes: Any,
    ) -> None:
        super().__init__(preset, changes)
        require_known(search, ("exact", "scan", "hnsw", *_FAISS), "search")
        self._kind, self._pq_floats, self._hnsw = search, pq_floats, hnsw or {}
        self._order, self._fit_coefficients = order, fit_coefficients
        self._floats = floats

    def build(self, material: Material) -> None:
        """Fit the encoder, encode all documents and add their vectors to the search.

        Systems of one configuration share the encoder and its vectors.  Their time is
        part of each build.
        """
        super().build(material)
        key = ("vectors", self.config(material), self._fit_coefficients)
        if key not in material.shared:
            start = time.perf_counter()
            encoder = self._fitted(material)
            vectors = encoder.encode_documents(self.documents, threads=self.threads)
            material.shared[key] = encoder, vectors, time.perf_counter() - start
        self._encoder, vectors, seconds = material.shared[key]
        start = time.perf_counter()
        size = min(self._encoder.config.vector_dimension, self._floats or 1 << 30)
        if self._kind in _FAISS:
            self._search: Any = _Faiss(self._kind, size, self._pq_floats)
        else:
            settings = HNSWSettings(seed=material.seed, **self._hnsw)
            self._search = make_search(self._kind, size, settings)
        self._position = insertion_order(self._order, vectors, material.seed)
        self._search.add(np.arange(len(vectors)), self._shortened(vectors)[self._position], self.threads)
        self.build_seconds = seconds + time.perf_counter() - start

    def _shortened(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.ascontiguousarray(vectors[:, : self._floats])

    def _fitted(self, material: Material) -> FDEEncoder:
        encoder = FDEEncoder(self.config(material))
        if encoder.needs_fit:
            encoder.fit(self.documents, threads=self.threads)
        if self._fit_coefficients:
            return encoder
        if "blocks" not in encoder.arrays or "learned" in encoder.arrays:
            raise ValueError(
                "fit_coefficients=False needs an FDE with moments and without a learned projection, got "
                f"{encoder.config.to_dict()}."
            )
        return FDEEncoder(encoder.config, **{**encoder.arrays, "blocks": default_blocks(encoder.config)})

    def search(
        self, queries: MultiVectors, k: int, *, ef: int | None = None, one_by_one: bool = False
    ) -> Answers:
        """Return the documents with the largest inner products.

        Queries are answered at once and not timed, except with `one_by_one`.
        """

        def answer(_: int, query: MultiVectors) -> Ranked:
            ids, scores = self.best(query, k, ef)
            return ids[0], scores[0]

        if one_by_one:
            return timed_search(queries, k, answer)
        return Answers(*self.best(queries, k, ef), np.full(len(queries), np.nan))

    def best(
        self, queries: MultiVectors, k: int, ef: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return positions and inner products of each query's `k` best documents."""
        vectors = self._shortened(self._encoder.encode_queries(queries, threads=self.threads))
        more = {} if ef is None else {"ef": ef}
        ids, scores = self._search.search(vectors, k, threads=self.threads, **more)
        return np.where(ids < 0, -1, self._position[ids]), scores

    def reads_tokens(self, **_: Any) -> bool:
        """Return False: nothing is ranked exactly."""
        return False

    def bytes_per_document(self) -> float:
        """Return the bytes of a stored vector, with the links of a graph."""
        return float(self._search.info()["bytes_per_vector"])


class Carving(System):
    """A first stage, then Chamfer with fewer query vectors (ball carving).

    See :func:`muvera.reranking.chamfer.carve_queries`.  `build` has the arguments of
    :class:`FirstStage`.
    """

    name: ClassVar[str] = "carving"

    def __init__(self, **build: Any) -> None:
        self._first = FirstStage(**build)

    @staticmethod
    def open_arguments() -> Iterable[str]:
        """Return the names of the first stage's arguments."""
        return arguments_of(FirstStage, "build")

    def build(self, material: Material) -> None:
        """Build the first stage."""
        super().build(material)
        self._first.build(material)

    def search(
        self, queries: MultiVectors, k: int, *, candidates: int = 100, tau: float | None = None
    ) -> Answers:
        """Rank `candidates` documents by the carved query; tau None ranks exactly."""

        def answer(_: int, query: MultiVectors) -> Ranked:
            found = self._first.best(query, max(k, candidates))[0][0]
            asked = query if tau is None else carve_queries(query, tau)
            return self.ranked_exactly(asked, found[found >= 0], k)

        return timed_search(queries, k, answer)

    def bytes_per_document(self) -> float:
        """Return the bytes of a stored vector."""
        return self._first.bytes_per_document()


class _Faiss:
    """Search by faiss: product codes, or a graph of floats or of product codes.

    A code has 256 centers for each group of floats.
    """

    def __init__(self, kind: str, dimension: int, group: int) -> None:
        if dimension % group and kind != "graph":
            raise ValueError(f"pq_floats must divide the {dimension} floats of a vector, got {group}.")
        self._faiss = import_extra("faiss", "experiments", f"search={kind!r}")
        self._dimension, self._group, self._kind = dimension, group, kind

    def add(self, ids: NDArray[np.int64], vectors: NDArray[np.float32], threads: int) -> None:
        metric = self._faiss.METRIC_INNER_PRODUCT
        if self._kind != "graph":
            self._codes = self._faiss.IndexPQ(self._dimension, self._dimension // self._group, 8, metric)
            self._codes.train(vectors)
            self._codes.add(vectors)
        if self._kind == "pq":
            self._index: Any = self._codes
            return
        graph = self._faiss.IndexHNSWFlat(self._dimension, _LINKS, metric)
        graph.hnsw.efConstruction = _EF_CONSTRUCTION
        graph.add(vectors)
        self._index = graph
        if self._kind == "pq_graph":
            # As in DiskANN, floats make the links, and codes are compared along them.
            # IndexHNSWPQ would make links by Euclidean distances of codes.
            self._index = self._faiss.IndexHNSW(self._codes, _LINKS)
            self._index.hnsw = graph.hnsw
            self._index.ntotal = graph.ntotal

    def search(
        self, vectors: NDArray[np.float32], k: int, *, threads: int, ef: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if ef is not None:
            self._index.hnsw.efSearch = ef
        scores, ids = self._index.search(vectors, k)
        return ids, scores

    def info(self) -> dict[str, int]:
        codes = 4 * self._dimension if self._kind == "graph" else self._dimension // self._group
        links = 0 if self._kind == "pq" else 4 * 2 * _LINKS
        return {"bytes_per_vector": codes + links}
