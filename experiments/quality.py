"""Recall of FDE candidates: every option alone and together, over seeds and collections.

10-recall@N is the share of exact Chamfer's top ten among the first N documents by FDE inner
product, averaged over queries.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import FDEConfig, FDEEncoder, MultiVectors
from muvera.mips import HNSWSearch

from .datasets.collections import Collection

__all__ = ["DEPTHS", "FIRST_SEED", "ROWS", "TARGETS", "TOP", "Row", "measure", "merged"]

#: Whose exact top so many documents are to be found, and among how many candidates.
TOP = 10
DEPTHS = (10, 50, 100)

#: Seeds count on from the configuration's default.
FIRST_SEED = 42

#: What the default is to reach at 50 candidates.
TARGETS = {
    "cranfield-minilm": 0.955,
    "lareqa-en-minilm": 0.985,
    "lareqa-en-e5": 0.93,
    "plaid-colbertv2-lotte500": 0.88,
}

# FDEs held at a time.
_BLOCK_BYTES = 128 << 20


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Parameters
    ----------
    group : str
        Rows of a group are compared with each other.
    name : str
    changes : dict
        Of the preset.
    preset : str
    hnsw : bool
        Search through the graph with its default settings instead of reading all FDEs.
    """

    group: str
    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    preset: str = "default"
    hnsw: bool = False

    def config(self, dimension: int, seed: int) -> FDEConfig:
        """Return the row's configuration."""
        return FDEConfig.preset(self.preset, dimension, **{**self.changes, "seed": seed})


#: What the default changes of the paper's recipe, one option a line: (name, with it, what is
#: without it, without it).
OPTIONS: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("complementary", {"projection": "complementary"}, "Rademacher", {"projection": "rademacher"}),
    ("no fill", {"fill_empty_partitions": False}, "filled", {"fill_empty_partitions": True}),
    ("centered", {"center": True}, "not centered", {"center": False}),
    ("unit cells", {"document_cells": "unit"}, "means as cells", {"document_cells": "mean"}),
    ("soft cells", {"soft_query_cells": 0.05}, "hard cells", {"soft_query_cells": 0.0}),
    (
        "orthogonal hyperplanes",
        {"hyperplanes": "orthogonal"},
        "Gaussian hyperplanes",
        {"hyperplanes": "gaussian"},
    ),
]

_SIZES = [(40, 4, 16), (20, 4, 32), (40, 5, 8), (10, 6, 16), (20, 6, 8), (80, 3, 16), (10, 5, 32), (80, 4, 8)]


def _rows() -> Iterator[Row]:
    yield Row("together", "paper", preset="paper")
    together: dict[str, Any] = {}
    for name, on, _, _ in OPTIONS:
        together = together | on
        if 1 < len(together) < len(OPTIONS):
            yield Row("together", f"... + {name}", together, preset="paper")
        elif len(together) == 1:
            yield Row("together", f"paper + {name}", together, preset="paper")
    yield Row("together", "default: ... + orthogonal hyperplanes")
    yield Row("together", "default through hnswlib", hnsw=True)
    for name, on, _, _ in OPTIONS[1:]:
        yield Row("alone", f"paper + {name}", on, preset="paper")
    for _, _, name, off in OPTIONS[:-1]:  # the last is the last but one of "together"
        yield Row("left out", f"default, {name}", off)
    yield Row("size", "default at 2,560", {"num_simhash_projections": 3})
    yield Row("size", "default at 40,960", _size(40, 6, 16))
    for size in _SIZES:
        yield Row("shape", f"default as {size}", _size(*size))
    for tau in (0.1, 0.2):
        yield Row("tau", f"default, tau {tau}", {"soft_query_cells": tau})


def _size(repetitions: int, bits: int, width: int) -> dict[str, Any]:
    return {
        "num_repetitions": repetitions,
        "num_simhash_projections": bits,
        "projection_dimension": width,
    }


#: The table's lines, in order.
ROWS = list(_rows())


def measure(
    row: Row, collection: Collection, top: NDArray[np.int64], seed: int, threads: int | None = None
) -> dict[str, Any]:
    """Measure one row once.

    Parameters
    ----------
    row : Row
    collection : Collection
    top : int64 (n_queries, TOP)
        Exact Chamfer's best, as :func:`experiments.datasets.collections.exact_top` returns them.
    seed : int
    threads : int, optional

    Returns
    -------
    dict
        ``seed``, ``recall`` at each of DEPTHS, ``vector_dimension`` and ``seconds``.
    """
    start = time.perf_counter()
    documents, queries = collection.documents, collection.queries
    encoder = FDEEncoder(row.config(documents.dimension, seed)).fit(documents)
    query_fdes = encoder.encode_queries(queries, threads=threads)
    count = min(max(DEPTHS), len(documents))
    if row.hnsw:
        found = _search_graph(encoder, documents, query_fdes, count, threads)
    else:
        found = _search_exactly(encoder, documents, query_fdes, count, threads)
    return {
        "seed": seed,
        "recall": {str(depth): recall(found[:, :depth], top) for depth in DEPTHS},
        "vector_dimension": encoder.config.vector_dimension,
        "seconds": round(time.perf_counter() - start, 2),
    }


def merged(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Return a collection's new results with those old rows that were not measured again.

    Rows of another content of the collection, and those that ROWS no longer has, are dropped.
    """
    known = [row.name for row in ROWS]
    rows = {row["name"]: row for row in new["rows"]}
    if old is not None and old["checksum"] == new["checksum"]:
        rows = {row["name"]: row for row in old["rows"]} | rows
    kept = sorted(
        (row for name, row in rows.items() if name in known), key=lambda row: known.index(row["name"])
    )
    return {**new, "rows": kept}


def recall(found: NDArray[np.int64], top: NDArray[np.int64]) -> float:
    """Return which share of `top`, (n, k), is in `found`, (n, m), averaged over rows."""
    hits = (top[:, :, np.newaxis] == found[:, np.newaxis, :]).any(axis=2)
    return round(float(hits.mean()), 5)


def _blocks(
    encoder: FDEEncoder, documents: MultiVectors, threads: int | None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    step = max(1, _BLOCK_BYTES // (4 * encoder.config.vector_dimension))
    for start in range(0, len(documents), step):
        yield start, encoder.encode_documents(documents[start : start + step], threads=threads)


def _search_exactly(
    encoder: FDEEncoder,
    documents: MultiVectors,
    query_fdes: NDArray[np.float32],
    count: int,
    threads: int | None,
) -> NDArray[np.int64]:
    """Return each query's `count` best positions; of the FDEs only a block is held."""
    shape = (len(query_fdes), 0)
    scores, places = np.empty(shape, np.float32), np.empty(shape, np.int64)
    for start, fdes in _blocks(encoder, documents, threads):
        scores = np.concatenate([scores, query_fdes @ fdes.T], axis=1)
        here = np.broadcast_to(np.arange(start, start + len(fdes)), (len(query_fdes), len(fdes)))
        places = np.concatenate([places, here], axis=1)
        if scores.shape[1] > count:
            best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
            scores = np.take_along_axis(scores, best, axis=1)
            places = np.take_along_axis(places, best, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(places, order, axis=1)


def _search_graph(
    encoder: FDEEncoder,
    documents: MultiVectors,
    query_fdes: NDArray[np.float32],
    count: int,
    threads: int | None,
) -> NDArray[np.int64]:
    graph = HNSWSearch(encoder.config.vector_dimension)
    for start, fdes in _blocks(encoder, documents, threads):
        graph.add(np.arange(start, start + len(fdes)), fdes, threads)
    return graph.search(query_fdes, count, threads=threads)[0]
