"""How much compact FDEs find, learned from a random quarter of the documents, and what they cost.

10-recall@50 is the share of exact Chamfer's top ten among the first 50 documents by FDE: among all
documents, and among those alone that the maps have not seen.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import FDEConfig, FDEEncoder, MultiVectors, chamfer_matrix
from muvera.mips import HNSWSearch

from .datasets.collections import Collection
from .measuring import processor_time, recall_of_scores, share, threads_in_words
from .report.stored_results import markdown_table, text_table

__all__ = ["GRAPH", "SIZES", "graph_ratios", "markdown", "measure", "table"]

#: Floats of the compact FDEs; the first is fitted, the others are its leading columns, which is
#: what fitting them gives.
SIZES = (512, 256)

#: The collection that graphs are built of.
GRAPH = "cosqa-minilm"

# Candidates; documents and rounds that are timed; queries that are timed.
_DEPTH, _TIMED, _ROUNDS, _ASKED = 50, 400, 5, 100


def measure(collection: Collection, seed: int, queries: bool, threads: int | None = None) -> dict[str, Any]:
    """Measure one random quarter of the documents.

    Parameters
    ----------
    collection : Collection
    seed : int
        Of the quarter.
    queries : bool
        Whether to fit also from the documents and a random half of the queries, and ask the rest.
    threads : int, optional
        For all but the timed encoding, which has one.

    Returns
    -------
    dict
        ``all`` and ``outside``: recall by floats; ``queries``: the same over all documents, of the
        maps that were learned from queries, too (``without`` them, the same queries asked);
        ``fit_seconds``; ``encode``: the processor's time at SIZES[0] over that of the long FDEs.
    """
    documents, stream = collection.documents, np.random.default_rng(seed)
    inside = np.sort(stream.choice(len(documents), max(1, round(len(documents) / 4)), replace=False))
    outside = np.setdiff1d(np.arange(len(documents)), inside)
    exact = chamfer_matrix(collection.queries, documents, threads=threads)
    long = FDEConfig(dimension=documents.dimension)
    compact = dataclasses.replace(long, compact_dimension=SIZES[0])
    plain = FDEEncoder(long).fit(documents[inside])
    start = time.perf_counter()
    learned = FDEEncoder(compact).fit(documents[inside], threads=threads)
    seconds = time.perf_counter() - start
    scores = _scores(plain, collection.queries, documents, threads) | _scores(
        learned, collection.queries, documents, threads
    )
    found: dict[str, Any] = {
        "all": {size: recall_of_scores(exact, one) for size, one in scores.items()},
        "outside": {
            size: recall_of_scores(exact[:, outside], one[:, outside]) for size, one in scores.items()
        },
        "fit_seconds": round(seconds, 1),
        "encode": round(_time_ratio(learned, plain, documents[:_TIMED]), 2),
    }
    if queries:
        order = stream.permutation(len(collection.queries))
        known, asked = np.sort(order[::2]), np.sort(order[1::2])
        taught = FDEEncoder(compact).fit(documents[inside], collection.queries[known], threads=threads)
        told = _scores(taught, collection.queries[asked], documents, threads)
        found["queries"] = {size: recall_of_scores(exact[asked], one) for size, one in told.items()}
        found["without"] = {size: recall_of_scores(exact[asked], scores[size][asked]) for size in told}
    return found


def _scores(
    encoder: FDEEncoder, queries: MultiVectors, documents: MultiVectors, threads: int | None
) -> dict[str, NDArray[np.float32]]:
    """Return FDE scores (n_queries, n_documents) by number of floats."""
    asked = encoder.encode_queries(queries, threads=threads)
    vectors = encoder.encode_documents(documents, threads=threads)
    if encoder.config.compact_dimension is None:
        return {"long": asked @ vectors.T}
    return {str(size): asked[:, :size] @ vectors[:, :size].T for size in SIZES}


def _time_ratio(one: FDEEncoder, other: FDEEncoder, documents: MultiVectors) -> float:
    """Return the median over rounds of the first's time over the second's, which take turns."""
    ratios = []
    for _ in range(_ROUNDS + 1):
        spent = [processor_time(lambda e=e: e.encode_documents(documents, threads=1)) for e in (one, other)]  # type: ignore[misc]
        ratios.append(spent[0] / spent[1])
    return float(np.median(ratios[1:]))  # the first round compiles


def graph_ratios(collection: Collection, seed: int) -> dict[str, float]:
    """Return how many times faster graphs of compact FDEs are built and asked, one thread.

    The processor's times; queries take turns, the least of two rounds counts.
    """
    documents = collection.documents
    quarter = np.sort(np.random.default_rng(seed).choice(len(documents), len(documents) // 4, replace=False))
    graphs, asked, build = [], [], []
    for size in (None, SIZES[0]):
        config = FDEConfig(dimension=documents.dimension, compact_dimension=size)
        encoder = FDEEncoder(config).fit(documents[quarter])
        vectors = encoder.encode_documents(documents)
        graph = HNSWSearch(config.vector_dimension)
        build.append(processor_time(lambda g=graph, v=vectors: g.add(np.arange(len(v)), v, 1)))  # type: ignore[misc]
        graphs.append(graph)
        asked.append(encoder.encode_queries(collection.queries[:_ASKED]))
    least = np.full((2, len(asked[0])), np.inf)
    for _ in range(2):
        for i in range(len(asked[0])):
            for j, graph in enumerate(graphs):
                query = asked[j][i : i + 1]
                spent = processor_time(lambda g=graph, q=query: g.search(q, _DEPTH, threads=1))  # type: ignore[misc]
                least[j, i] = min(least[j, i], spent)
    middle = np.median(least, axis=1)
    return {"build": round(build[0] / build[1], 1), "query": round(float(middle[0] / middle[1]), 1)}


def table(results: dict[str, Any]) -> str:
    """Return the table for the terminal."""
    return f"{text_table(*_table(results))}\n{_graphs(results)}".rstrip()


def markdown(results: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    return f"{_head(results)}\n\n{markdown_table(*_table(results))}\n\n{_graphs(results)}".rstrip()


def _head(results: dict[str, Any]) -> str:
    counts = sorted({len(one["runs"]) for one in results["collections"].values()})
    seeds = " to ".join(str(count) for count in sorted({counts[0], counts[-1]}))
    return (
        f"10-recall@50, maps learned from a random quarter of the documents, mean over {seeds} "
        f"quarters; {results['machine']['processor']}. Encoding is the time at {SIZES[0]} floats over "
        'that of the long FDE, one thread. "With queries": with the first quarter, a random half of the '
        "queries was given to `fit`, too, and the other half asked (in brackets: had none been given). "
        f"Fitting: {threads_in_words(results['threads'])}."
    )


def _table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    names = ["long", *map(str, SIZES)]
    header = ["", *names, *(f"{name}, outside" for name in names)]
    header += [*(f"{size}, with queries" for size in SIZES), "encoding", "fit, s"]
    rows = []
    for name, one in results["collections"].items():
        runs = one["runs"]
        cells = [name.removeprefix("plaid-")]
        for group in ("all", "outside"):
            cells += [share([run[group][column] for run in runs]) for column in names]
        taught = [run for run in runs if "queries" in run]
        for size in map(str, SIZES):
            pair = [share([run[group][size] for run in taught]) for group in ("queries", "without")]
            cells.append(f"{pair[0]} ({pair[1]})" if taught else "")
        cells.append(f"{np.mean([run['encode'] for run in runs]):.2f}x")
        cells.append(f"{np.mean([run['fit_seconds'] for run in runs]):.0f}")
        rows.append(cells)
    return header, rows


def _graphs(results: dict[str, Any]) -> str:
    ratios = results.get("graph")
    if not ratios:
        return ""
    return (
        f"Of {GRAPH}, hnswlib builds the graph of {SIZES[0]} floats {ratios['build']:.0f} times as fast as "
        f"that of the long FDEs, and answers {ratios['query']:.0f} times as fast (one thread)."
    )
