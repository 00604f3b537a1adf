"""Exact search, a scan of codes and a graph on the same vectors.

The tables show recall, and the processor time of builds and queries.

The first vectors are those of a collection's documents.  Made vectors follow: a
document's vector plus half the difference of two others.  Made vectors are for timing;
their recall is not that of real text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from muvera.fde.encoder import FDEEncoder
from muvera.mips import make_search
from muvera.mips.base import VectorSearch
from muvera.mips.settings import HNSWSettings

from ..datasets.discovery import CACHE
from ..report.table import Column, Table
from .plumbing import Cache, Data, Save, finish, interleaved, load_collections, measured_on, progress, timed

#: Numbers of candidates, and queries of a batch.
COUNTS, BATCH = (200, 800), 16

# A graph's ef, in candidates.
_BREADTHS = (1, 2, 4)

# Number of queries for recall and for timing, rounds of timing, and vectors per
# addition.
_JUDGED, _TIMED, _ROUNDS, _BLOCK = 200, 16, 5, 1 << 17


def measure(
    name: str, own: NDArray[np.float32], queries: NDArray[np.float32], sizes: Iterable[int], graphs: int
) -> Iterator[dict[str, Any]]:
    """Yield a row for each size, search and number of candidates.

    No graph has more than `graphs` vectors.

    Vectors beyond `own`, those of the documents, are generated.
    """
    for size in sizes:
        kinds = ["exact", "scan", *["hnsw"] * (size <= graphs)]
        built = {kind: _built(kind, own, size) for kind in kinds}
        for count in COUNTS:
            searches: dict[str, Callable[..., Any]] = {}
            for kind, (search, _) in built.items():
                for breadth in _BREADTHS if kind == "hnsw" else (0,):
                    label = f"{kind}, ef={breadth * count}" if breadth else kind
                    searches[label] = partial(search.search, k=count, threads=1, ef=breadth * count or None)
            best = searches["exact"](queries[:_JUDGED])[0]
            times = interleaved(
                {key: timed(partial(_one_by_one, each, queries[:_TIMED])) for key, each in searches.items()},
                _ROUNDS,
            )
            batches = interleaved(
                {key: timed(partial(each, queries[:BATCH])) for key, each in searches.items()}, _ROUNDS
            )
            for label, each in searches.items():
                found = each(queries[:_JUDGED])[0]
                kind = label.partition(",")[0]
                row = {"collection": name, "real": size <= len(own), "documents": size, "search": label}
                row |= {"candidates": count, "build_seconds": built[kind][1]}
                row |= {"bytes": built[kind][0].info()["bytes_per_vector"]}
                row["recall"] = float(
                    np.mean([np.isin(a, b).mean() for a, b in zip(best, found, strict=True)])
                )
                row["ms"] = 1000 * float(np.median(times[label][1])) / len(queries[:_TIMED])
                row["batch_ms"] = 1000 * float(np.median(batches[label][1])) / len(queries[:BATCH])
                yield row


def _built(kind: str, own: NDArray[np.float32], size: int) -> tuple[VectorSearch, float]:
    """Return a search of `size` vectors, and the seconds of adding them.

    One thread adds them.
    """
    graph = HNSWSettings() if kind == "hnsw" else None
    make_search(kind, own.shape[1], graph).add(
        np.arange(300), made_vectors(own, 0, 300), threads=1
    )  # compiles
    search, seconds = make_search(kind, own.shape[1], graph), 0.0
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        block = made_vectors(own, start, stop)
        began = time.process_time()
        search.add(np.arange(start, stop), block, threads=1)
        seconds += time.process_time() - began
    return search, seconds


def _one_by_one(search: Callable[[NDArray[np.float32]], object], queries: NDArray[np.float32]) -> None:
    for i in range(len(queries)):
        search(queries[i : i + 1])


def made_vectors(own: NDArray[np.float32], start: int, stop: int) -> NDArray[np.float32]:
    """Return the vectors start..stop of an endless list.

    It begins with the real vectors `own`; generated vectors follow.
    """
    real, made = own[start:stop], max(0, stop - max(start, len(own)))
    rng = np.random.default_rng(start)
    first, second, third = own[rng.integers(len(own), size=(3, made))]
    return np.concatenate([real, first + (second - third) / 2])


def tables_of(rows: list[dict[str, Any]], on: str) -> list[Table]:
    """Return a table for each number of candidates."""
    columns = [
        Column("vectors", lambda row: f"{row['documents']:,} {'real' if row['real'] else 'generated'}"),
        *(Column("search"), Column("bytes per vector", "bytes", "{:,.0f}")),
        Column("build", "build_seconds", "{:.2f}", "processor s"),
        *(Column("recall", "recall", "{:.3f}"), Column("one query", "ms", "{:.3f}", "processor ms")),
        Column(f"query in a batch of {BATCH}", "batch_ms", "{:.3f}", "processor ms"),
    ]
    names = ", ".join(dict.fromkeys(row["collection"] for row in rows))
    caption = (
        f"The first stage alone, on one thread: `fde` vectors of {names}. A generated vector is a real one "
        "plus half the difference of two others. Real text has another recall than generated vectors. "
        f"Recall is the share of the best inner products among the candidates, over at most {_JUDGED} "
        f"queries. {on}"
    )
    title = "Exact search, a scan of codes and a graph: {} candidates"
    return [
        Table.of(title.format(count), columns, [row for row in rows if row["candidates"] == count], caption)
        for count in dict.fromkeys(row["candidates"] for row in rows)
    ]


def first_stage(
    collection: Annotated[
        list[str] | None, typer.Option(help="Collection; may be repeated. Default: lareqa-en-minilm.")
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option(
            min=300, help="Number of vectors; may be repeated. The collection's size is always measured."
        ),
    ] = None,
    graphs: Annotated[int, typer.Option(help="Maximum number of vectors in a graph.")] = 100_000,
    data: Data = None,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Compare exact search, a scan of codes and a graph on one thread.

    All search the same vectors.
    """
    on, rows = measured_on(), []
    with threadpool_limits(1):
        for loaded in load_collections(collection or ["lareqa-en-minilm"], data, cache):
            encoder = FDEEncoder.preset("fde", loaded.documents.dimension).fit(loaded.documents)
            own, queries = encoder.encode_documents(loaded.documents), encoder.encode_queries(loaded.queries)
            for row in measure(loaded.name, own, queries, sorted({*(size or ()), len(own)}), graphs):
                progress(", ".join(f"{key}={value}" for key, value in row.items()))
                rows.append(row)
    finish("first_stage", "First stage", tables_of(rows, on), save)
