"""How much learned vectors find, learned from a random quarter of the documents, and what they cost.

10-recall@50, as in :mod:`experiments.compact`: among all documents, and among those alone that the
maps have not seen.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import LearnedConfig, LearnedEncoder, MultiVectors, chamfer_matrix

from .datasets.collections import Collection
from .measuring import processor_time, recall_of_scores, share, threads_in_words
from .report.stored_results import markdown_table, text_table

__all__ = ["COSTS", "SIZES", "markdown", "measure", "measure_costs", "table"]

#: Floats that are fitted, and those of their leading columns that are looked at.
SIZES = {2048: (2048, 1024), 512: (512, 256)}

#: What is varied, one at a time, to see what it buys: at COSTS_AT floats.
COSTS = {"num_landmarks": (1024, 2048, 4096, 8192, 16384), "num_features": (1024, 2048, 4096, 8192)}
COSTS_AT = 1024

# Documents and queries that are timed.
_TIMED = 200


def measure(collection: Collection, seed: int, threads: int | None = None) -> dict[str, Any]:
    """Measure one random quarter of the documents.

    Returns
    -------
    dict
        ``all`` and ``outside``: recall by floats; by fitted floats ``fit_seconds``, and
        ``encode_seconds`` of all documents, with `threads`.
    """
    documents, queries = collection.documents, collection.queries
    inside = quarter(len(documents), seed)
    outside = np.setdiff1d(np.arange(len(documents)), inside)
    exact = chamfer_matrix(queries, documents, threads=threads)
    found: dict[str, Any] = {"all": {}, "outside": {}, "fit_seconds": {}, "encode_seconds": {}}
    for fitted, sizes in SIZES.items():
        config = LearnedConfig(dimension=documents.dimension, vector_dimension=fitted, seed=seed)
        start = time.perf_counter()
        encoder = LearnedEncoder(config).fit(documents[inside], threads=threads)
        found["fit_seconds"][str(fitted)] = round(time.perf_counter() - start, 1)
        start = time.perf_counter()
        vectors = encoder.encode_documents(documents, threads=threads)
        found["encode_seconds"][str(fitted)] = round(time.perf_counter() - start, 1)
        asked = encoder.encode_queries(queries, threads=threads)
        for size in sizes:
            scores = asked[:, :size] @ vectors[:, :size].T
            found["all"][str(size)] = recall_of_scores(exact, scores)
            found["outside"][str(size)] = recall_of_scores(exact[:, outside], scores[:, outside])
    return found


def measure_costs(collection: Collection, seed: int, threads: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield what each value of each of COSTS finds, and its times, one thread.

    Yields
    ------
    dict
        ``knob``, ``value``, ``recall``, and the processor's ``document_ms`` and ``query_ms``.
    """
    documents, queries = collection.documents, collection.queries
    inside = quarter(len(documents), seed)
    exact = chamfer_matrix(queries, documents, threads=threads)
    for knob, values in COSTS.items():
        for value in values:
            changed = {"vector_dimension": COSTS_AT, "seed": seed, knob: value}
            encoder = LearnedEncoder(LearnedConfig(dimension=documents.dimension, **changed))
            encoder.fit(documents[inside], threads=threads)
            scores = _scores(encoder, queries, documents, threads)
            some, asked = documents[:_TIMED], queries[:_TIMED]
            spent = processor_time(lambda e=encoder, d=some: e.encode_documents(d, threads=1))  # type: ignore[misc]
            spent_asking = processor_time(lambda e=encoder, q=asked: e.encode_queries(q, threads=1))  # type: ignore[misc]
            yield {
                "knob": knob,
                "value": value,
                "recall": recall_of_scores(exact, scores),
                "document_ms": round(1e3 * spent / len(some), 3),
                "query_ms": round(1e3 * spent_asking / len(asked), 3),
            }


def quarter(count: int, seed: int) -> NDArray[np.int64]:
    """Return a random quarter of `count` positions, ascending."""
    picked = np.random.default_rng(seed).choice(count, max(1, round(count / 4)), replace=False)
    return np.sort(picked)


def _scores(
    encoder: LearnedEncoder, queries: MultiVectors, documents: MultiVectors, threads: int | None
) -> NDArray[np.float32]:
    vectors = encoder.encode_documents(documents, threads=threads)
    scores: NDArray[np.float32] = encoder.encode_queries(queries, threads=threads) @ vectors.T
    return scores


def table(results: dict[str, Any]) -> str:
    """Return the tables for the terminal."""
    parts = [text_table(*_table(results))]
    if results.get("costs"):
        parts.append(text_table(*_costs(results)))
    return "\n\n".join(parts)


def markdown(results: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    counts = sorted({len(one["runs"]) for one in results["collections"].values()})
    seeds = " to ".join(str(count) for count in sorted({counts[0], counts[-1]}))
    where = f"{results['machine']['processor']}, {results['machine']['cores']} cores"
    parts = [
        f"10-recall@50 by floats, maps learned from a random quarter of the documents, mean over {seeds} "
        f"quarters. Fitting and encoding all documents: {threads_in_words(results['threads'])}; {where}.",
        markdown_table(*_table(results)),
    ]
    if results.get("costs"):
        parts += [
            f"What landmarks and features buy, at {COSTS_AT:,} floats, one quarter: 10-recall@50, and the "
            "processor's milliseconds for a document (landmarks) or a query (features).",
            markdown_table(*_costs(results)),
        ]
    return "\n\n".join(parts)


def _table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    sizes = sorted((str(size) for group in SIZES.values() for size in group), key=int, reverse=True)
    header = ["", *(f"{int(s):,}" for s in sizes), *(f"{int(s):,}, outside" for s in sizes)]
    header += ["fit, s", "encoding, s", "ms a document"]
    rows = []
    for name, one in results["collections"].items():
        runs, largest = one["runs"], str(max(SIZES))
        cells = [name.removeprefix("plaid-")]
        cells += [share([run[group][size] for run in runs]) for group in ("all", "outside") for size in sizes]
        seconds = float(np.mean([run["encode_seconds"][largest] for run in runs]))
        cells.append(f"{np.mean([run['fit_seconds'][largest] for run in runs]):.0f}")
        cells += [f"{seconds:.0f}", f"{1e3 * seconds / one['documents']:.1f}"]
        rows.append(cells)
    return header, rows


def _costs(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    names = list(results["costs"])
    header = ["", *(name.removeprefix("plaid-") for name in names)]
    rows = []
    for i, first in enumerate(results["costs"][names[0]]):
        cells = [f"{first['knob'].removeprefix('num_')} {first['value']:,}"]
        time_of = "document_ms" if first["knob"] == "num_landmarks" else "query_ms"
        for name in names:
            row = results["costs"][name][i]
            cells.append(f"{share([row['recall']])} ({row[time_of]:.2f} ms)")
        rows.append(cells)
    return header, rows
