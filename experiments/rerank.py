"""What cheaper reranking saves and what it gives up: early exit, carved queries, patience.

Every way ranks the same candidates, best FDE first, and is compared with scoring all of them: by the
products that it makes, by its time, and by which share of the true best it keeps.  A product is that
of a document token and a panel of LANES query tokens: the kernel makes no smaller one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import FDEConfig, FDEEncoder, MultiVectors
from muvera.data.ranking import best_first
from muvera.kernels.tile import LANES
from muvera.mips import ExactSearch
from muvera.reranking.chamfer import scores_at
from muvera.reranking.pruning import RerankOptions, rank_candidates

from .datasets.collections import Collection
from .report.stored_results import markdown_table, text_table

__all__ = ["CANDIDATES", "WAYS", "Way", "markdown", "measure", "table"]

#: Candidates of a query, as far as there are so many documents.
CANDIDATES = (100, 200, 500)

K = 10


@dataclass(frozen=True)
class Way:
    """One way to rank candidates.

    Parameters
    ----------
    name : str
    early_exit : bool
    ball_carving_tau : float, optional
    patience : int, optional
        As for :meth:`muvera.MuveraIndex.search`.
    """

    name: str
    early_exit: bool = True
    ball_carving_tau: float | None = None
    patience: int | None = None


#: The first is what the others are compared with; the second is what a search does.
WAYS = (
    Way("all products", early_exit=False),
    Way("early exit (default)"),
    *(Way(f"carve {tau}", ball_carving_tau=tau) for tau in (0.9, 0.8, 0.7, 0.6, 0.5)),
    *(Way(f"patience {patience}", patience=patience) for patience in (50, 20, 10)),
    Way("carve 0.7, patience 20", ball_carving_tau=0.7, patience=20),
)

#: All products through the kernel for many queries, which knows no order of candidates.
MATRIX = "all products, matrix kernel"

Found = tuple[NDArray[np.int64], int]


def measure(
    collection: Collection,
    queries: int,
    repeat: int,
    candidates: Sequence[int] = CANDIDATES,
    seed: int = 0,
) -> dict[str, Any]:
    """Rank a sample of queries' candidates in every way, the ways taking turns, on one thread.

    Parameters
    ----------
    collection : Collection
    queries : int
        How many, at most.
    repeat : int
        Passes over the queries; for each query the least processor time counts.
    candidates : sequence of int
    seed : int
        Of the sample.

    Returns
    -------
    dict
        Sizes, and ``rows``, one a way and number of candidates: shares of products and of time
        ``saved`` and ``time`` relative to all products, and the share of the best ``kept``.
    """
    documents, stream = collection.documents, np.random.default_rng(seed)
    asked = collection.queries[np.sort(stream.permutation(len(collection.queries))[:queries])]
    proposed = _proposed(documents, asked, min(max(candidates), len(documents)))
    rows = []
    for count in sorted({min(count, len(documents)) for count in candidates}):
        rows += _compared(documents, asked, proposed[:, :count], repeat)
    return {
        "documents": len(documents),
        "document_tokens": round(float(documents.lengths.mean()), 1),
        "queries": len(asked),
        "query_tokens": round(float(asked.lengths.mean()), 1),
        "rows": rows,
    }


def _proposed(documents: MultiVectors, queries: MultiVectors, count: int) -> NDArray[np.int64]:
    """Return each query's candidates, best FDE first."""
    encoder = FDEEncoder(FDEConfig(dimension=documents.dimension)).fit(documents, threads=1)
    search = ExactSearch(encoder.config.vector_dimension)
    search.add(np.arange(len(documents)), encoder.encode_documents(documents, threads=1), 1)
    found, _ = search.search(encoder.encode_queries(queries, threads=1), count, None, 1)
    return found


def _compared(
    documents: MultiVectors, queries: MultiVectors, proposed: NDArray[np.int64], repeat: int
) -> list[dict[str, Any]]:
    calls: dict[str, Callable[[int], Found]] = {
        MATRIX: lambda q: _by_matrix(documents, queries[q : q + 1], proposed[q])
    }
    for way in WAYS:
        calls[way.name] = lambda q, way=way: _ranked(documents, queries[q], proposed[q], way)  # type: ignore[misc]
    times = {name: np.full(len(queries), np.inf) for name in calls}
    found: dict[str, list[Found]] = {
        name: [call(q) for q in range(len(queries))] for name, call in calls.items()
    }
    for _ in range(repeat):
        for q in range(len(queries)):
            for name, call in calls.items():
                start = time.thread_time()
                call(q)
                times[name][q] = min(times[name][q], time.thread_time() - start)
    full = found[WAYS[0].name]
    products = {name: sum(made for _, made in values) for name, values in found.items()}
    return [
        {
            "candidates": proposed.shape[1],
            "way": name,
            "saved": round(1 - products[name] / products[WAYS[0].name], 4),
            "time": round(float(times[name].sum() / times[WAYS[0].name].sum()), 4),
            "milliseconds": round(1e3 * float(times[name].mean()), 4),
            "kept": round(
                float(np.mean([np.isin(a, b).mean() for (a, _), (b, _) in zip(full, values, strict=True)])), 4
            ),
        }
        for name, values in found.items()
    ]


def _ranked(documents: MultiVectors, query: NDArray[Any], proposed: NDArray[np.int64], way: Way) -> Found:
    how = RerankOptions(K, early_exit=way.early_exit, patience=way.patience)
    best, _ = rank_candidates(
        query, way.ball_carving_tau, proposed, lambda at: [(documents, at, np.arange(len(at)))], how, 1
    )
    return best, sum(how.products)


def _by_matrix(documents: MultiVectors, query: MultiVectors, proposed: NDArray[np.int64]) -> Found:
    positions = np.sort(proposed)
    best = best_first(scores_at(query, documents, positions, threads=1)[:, 0], K)
    return positions[best], int(documents.lengths[positions].sum()) * -(-query.num_tokens // LANES)


def table(results: dict[str, Any]) -> str:
    """Return a table a collection for the terminal."""
    return "\n\n".join(
        f"{name}: {_sizes(found)}\n{text_table(*_table(found['rows']))}"
        for name, found in results["collections"].items()
    )


def markdown(results: dict[str, Any]) -> str:
    """Return the tables as Markdown, and how they were measured."""
    made = results["machine"]
    parts = [
        f"Best {K}; every cell is the share of products saved, the time relative to all products, and the "
        f"share of the best {K} that is kept. Least processor time of {results['repeat']} passes, one "
        f"thread; {made['processor']}."
    ]
    for name, found in results["collections"].items():
        parts.append(f"{name}: {_sizes(found)}.\n\n{markdown_table(*_table(found['rows']))}")
    return "\n\n".join(parts)


def _sizes(found: dict[str, Any]) -> str:
    return (
        f"{found['documents']:,} documents of {found['document_tokens']:.0f} tokens, "
        f"{found['queries']} queries of {found['query_tokens']:.0f}"
    )


def _table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    counts = sorted({row["candidates"] for row in rows})
    cells = {(row["way"], row["candidates"]): row for row in rows}
    names = list(dict.fromkeys(row["way"] for row in rows))
    header = ["saved, time, kept", *(f"{count} candidates" for count in counts)]
    return header, [[name, *(_cell(cells[name, count]) for count in counts)] for name in names]


def _cell(row: dict[str, Any]) -> str:
    return f"{row['saved']:.2f}, {row['time']:.2f}x, {row['kept']:.3f}"
