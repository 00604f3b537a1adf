"""Where three ways to search cross: all tokens, all FDEs, and a graph of FDEs.

The first two are exact in their own terms and need no graph; each is the fastest within some
size.  What is measured justifies ``muvera.index.muvera_index.EXACT_TOKENS`` and
``muvera.index.candidates.GRAPH_FROM``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from muvera import FDEConfig, FDEEncoder, MultiVectors, MuveraIndex, top_k
from muvera.index.candidates import GRAPH_FROM
from muvera.index.muvera_index import EXACT_TOKENS

from .datasets.collections import Collection
from .report.stored_results import markdown_table, text_table

__all__ = ["SIZES", "crossing", "joined", "markdown", "measure", "table"]

#: Documents, as far as there are so many.
SIZES = (125, 250, 500, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12000)

K = 10

#: The ways, in the order of the sizes that they are for.
WAYS = ("exact", "scan", "graph")


def joined(
    collections: Sequence[Collection], queries: int, seed: int = 0
) -> tuple[MultiVectors, MultiVectors]:
    """Return all collections' documents in random order, and a sample of their queries.

    Parameters
    ----------
    collections : sequence of Collection
        Of one dimension.
    queries : int
        How many.
    seed : int
    """
    stream = np.random.default_rng(seed)
    documents, asked = (
        MultiVectors.concatenate([MultiVectors(part.tokens, part.offsets) for part in parts])
        for parts in ([one.documents for one in collections], [one.queries for one in collections])
    )
    picked = stream.permutation(len(asked))[:queries]
    return documents[stream.permutation(len(documents))], asked[picked]


def measure(
    documents: MultiVectors, queries: MultiVectors, sizes: Sequence[int] = SIZES, repeat: int = 3
) -> Iterator[dict[str, Any]]:
    """Time single queries on growing parts of `documents`, one thread.

    Parameters
    ----------
    documents, queries : MultiVectors
    sizes : sequence of int
        Documents; those beyond what there is are left out.
    repeat : int
        Passes over the queries, the ways taking turns; for each query the least counts.

    Yields
    ------
    dict
        ``documents``, ``tokens``, milliseconds a query of each of WAYS, and the graph's
        ``recall`` of the candidates that a scan of all FDEs gives.
    """
    config = FDEConfig(dimension=documents.dimension)
    encoder = FDEEncoder(config).fit(documents)
    scan = MuveraIndex(config, backend="exact", exact_tokens=0, encoder=encoder)
    graph = MuveraIndex(config, backend="hnsw", exact_tokens=0, encoder=encoder)
    done = 0
    for size in [size for size in sizes if size <= len(documents)]:
        part = documents[:size]
        for index in (scan, graph):
            index.add(part[done:size])
        done = size
        ways: dict[str, Callable[[MultiVectors], Any]] = {
            "exact": lambda query, part=part: top_k(query, part, K, threads=1),  # type: ignore[misc]
            "scan": lambda query: scan.search(query, K, threads=1),
            "graph": lambda query: graph.search(query, K, threads=1),
        }
        found = _take_turns(ways, queries, repeat)
        yield {
            "documents": size,
            "tokens": part.num_tokens,
            **{name: round(milliseconds, 3) for name, milliseconds in found.items()},
            "recall": _agreement(scan, graph, queries),
        }


def _take_turns(
    ways: dict[str, Callable[[MultiVectors], Any]], queries: MultiVectors, repeat: int
) -> dict[str, float]:
    least = {name: np.full(len(queries), np.inf) for name in ways}
    for way in ways.values():  # apart: the first call compiles
        way(queries[:1])
    for _ in range(repeat):
        for i in range(len(queries)):
            for name, way in ways.items():
                start = time.perf_counter()
                way(queries[i : i + 1])
                least[name][i] = min(least[name][i], time.perf_counter() - start)
    return {name: 1e3 * float(np.median(times)) for name, times in least.items()}


def _agreement(scan: MuveraIndex, graph: MuveraIndex, queries: MultiVectors) -> float:
    """Return which share of the scan's results the graph gives too."""
    pairs = zip(scan.search(queries, K), graph.search(queries, K), strict=True)
    return round(float(np.mean([len(np.intersect1d(a.ids, b.ids)) / K for a, b in pairs])), 4)


def crossing(rows: Sequence[dict[str, Any]], small: str, large: str, size: str) -> float | None:
    """Return the `size` from which the way `large` stays faster than `small`.

    Interpolated between the measured sizes; None where that is not reached.

    Examples
    --------
    >>> rows = [{"tokens": 10, "a": 1.0, "b": 2.0}, {"tokens": 20, "a": 3.0, "b": 2.0}]
    >>> crossing(rows, "a", "b", "tokens")
    15.0
    """
    lead = [row[small] - row[large] for row in rows]  # positive where `large` is faster
    if not lead or lead[-1] <= 0:
        return None
    last = max((i for i, value in enumerate(lead) if value <= 0), default=None)
    if last is None:
        return float(rows[0][size])
    share = -lead[last] / (lead[last + 1] - lead[last])
    return float(rows[last][size] + share * (rows[last + 1][size] - rows[last][size]))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table for the terminal, and the crossings beside the constants in use."""
    return f"{text_table(*_table(rows))}\n\n{_crossings(rows)}"


def markdown(results: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    rows = results["rows"]
    source = f"Documents of {', '.join(results['collections'])}, one thread."
    return f"{source}\n\n{markdown_table(*_table(rows))}\n\n{_crossings(rows)}"


def _table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    header = ["documents", "tokens", "all tokens, ms", "all FDEs, ms", "graph, ms", "graph agrees"]
    cells = [
        [
            f"{row['documents']:,}",
            f"{row['tokens']:,}",
            *(f"{row[way]:.2f}" for way in WAYS),
            f"{row['recall']:.3f}",
        ]
        for row in rows
    ]
    return header, cells


def _crossings(rows: Sequence[dict[str, Any]]) -> str:
    first = crossing(rows, "exact", "scan", "tokens")
    second = crossing(rows, "scan", "graph", "documents")
    return (
        f"All FDEs are faster than all tokens from {_with_progress(first)} tokens on "
        f"(EXACT_TOKENS is {EXACT_TOKENS:,}); the graph is faster than all FDEs from {_with_progress(second)} "
        f"documents on (GRAPH_FROM is {GRAPH_FROM:,})."
    )


def _with_progress(value: float | None) -> str:
    return "more than the measured" if value is None else f"{value:,.0f}"
