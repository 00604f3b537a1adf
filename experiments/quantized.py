"""What FDEs lose when they are quantized, and what they then cost in bytes and time.

10-recall@N is the share of exact Chamfer's top ten among the first N documents by FDE.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import FDEConfig, FDEEncoder
from muvera.mips import ExactSearch, Int8Search
from muvera.mips.flat import FlatSearch
from muvera.mips.pq_codes import CodeSearch
from muvera.mips.product_quantizer import ProductQuantizer

from .datasets.collections import Collection
from .measuring import threads_in_words
from .quality import recall
from .report.stored_results import markdown_table, text_table

__all__ = ["DEPTHS", "ROWS", "Row", "markdown", "measure", "table"]

#: Candidates among which exact Chamfer's top ten is looked for.
DEPTHS = (50, 60, 75, 100)

#: The depth of the table, and the most recall that 32 times smaller FDEs may lose there.
DEPTH = 50

# Queries that are timed, and rounds of which the least counts.
_TIMED, _ROUNDS = 30, 3


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Parameters
    ----------
    name : str
    group : int
        Floats that a byte of product codes stands for; 0: no product codes.
    rescore : int
        Best by codes that are ordered by bytes.
    """

    name: str
    group: int = 0
    rescore: int = 0


#: The table's lines, in order; the first is what the others are compared with.
ROWS = [
    Row("float32, exact"),
    Row("int8"),
    Row("PQ-256-4", 4),
    Row("PQ-256-8", 8),
    Row("PQ-256-8, 100 rescored by int8", 8, 100),
    Row("PQ-256-8, 200 rescored by int8", 8, 200),
    Row("PQ-256-16", 16),
]


def measure(
    collection: Collection, top: NDArray[np.int64], seed: int, threads: int | None = None
) -> dict[str, dict[str, Any]]:
    """Measure every row once.

    Parameters
    ----------
    collection : Collection
    top : int64 (n_queries, 10)
        Exact Chamfer's best.
    seed : int
        Of the FDEs and of the codebooks.
    threads : int, optional
        For all but the timed searches, which have one.

    Returns
    -------
    dict
        By row: ``recall`` by depth, ``bytes_per_vector``, ``milliseconds`` of one query and
        ``seconds`` of learning and adding.
    """
    encoder = FDEEncoder(FDEConfig(dimension=collection.documents.dimension, seed=seed)).fit(
        collection.documents
    )
    fdes = encoder.encode_documents(collection.documents, threads=threads)
    queries = encoder.encode_queries(collection.queries, threads=threads)
    found: dict[str, dict[str, Any]] = {}
    searches: dict[str, FlatSearch] = {}
    for row, (search, seconds) in zip(ROWS, _searches(fdes, seed, threads), strict=True):
        labels, _ = search.search(queries, min(max(DEPTHS), len(fdes)), threads=threads)
        found[row.name] = {
            "recall": {str(depth): recall(labels[:, :depth], top) for depth in DEPTHS},
            "bytes_per_vector": search.info()["bytes_per_vector"],
            "seconds": round(seconds, 2),
        }
        searches[row.name] = search
    for name, milliseconds in _times(searches, queries[:_TIMED]).items():
        found[name]["milliseconds"] = round(milliseconds, 3)
    return found


def _searches(
    fdes: NDArray[np.float32], seed: int, threads: int | None
) -> Iterator[tuple[FlatSearch, float]]:
    """Yield a filled search for each row, and how long its learning and filling took."""
    quantizers: dict[int, ProductQuantizer] = {}
    learning: dict[int, float] = {}
    for row in ROWS:
        if row.group and row.group not in quantizers:
            start = time.perf_counter()
            quantizers[row.group] = ProductQuantizer.train(
                fdes, row.group, most=len(fdes), seed=seed, threads=threads
            )
            learning[row.group] = time.perf_counter() - start
        search: FlatSearch
        if row.group:
            search = CodeSearch(quantizers[row.group], row.rescore)
        else:
            search = (ExactSearch if row is ROWS[0] else Int8Search)(fdes.shape[1])
        start = time.perf_counter()
        search.add(np.arange(len(fdes)), fdes, threads)
        yield search, time.perf_counter() - start + learning.get(row.group, 0)


def _times(searches: dict[str, FlatSearch], queries: NDArray[np.float32]) -> dict[str, float]:
    """Return milliseconds of one query, one thread: the searches take turns, the least of rounds counts."""
    least = {name: np.full(len(queries), np.inf) for name in searches}
    for _ in range(_ROUNDS):
        for i in range(len(queries)):
            for name, search in searches.items():
                start = time.perf_counter()
                search.search(queries[i : i + 1], min(DEPTH, len(search)), threads=1)
                least[name][i] = min(least[name][i], time.perf_counter() - start)
    return {name: 1e3 * float(np.median(times)) for name, times in least.items()}


def table(results: dict[str, Any]) -> str:
    """Return the table for the terminal."""
    return f"{text_table(*_recall_table(results))}\n\n{text_table(*_cost_table(results))}"


def markdown(results: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    seeds = max(len(one["runs"]) for one in results["collections"].values())
    counted = "one seed" if seeds == 1 else f"mean over {seeds} seeds"
    caption = (
        f"Share of exact Chamfer's top 10 among the first {DEPTH} by FDE (10-recall@{DEPTH}), {counted}; "
        "FDEs of 10,240 floats, all of which are read; codebooks learned from all of them. "
        "\"Loss\" is float32's mean recall less the row's, and the greatest loss in one collection."
    )
    return f"{caption}\n\n{markdown_table(*_recall_table(results))}\n\n{_cost_caption(results)}\n\n" + (
        markdown_table(*_cost_table(results))
    )


def _means(results: dict[str, Any], value: Callable[[dict[str, Any]], float]) -> dict[str, list[float]]:
    """Return each row's value, averaged over seeds, one for each collection."""
    return {
        row.name: [
            float(np.mean([value(run[row.name]) for run in one["runs"]]))
            for one in results["collections"].values()
        ]
        for row in ROWS
    }


def _recall_table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    header = ["", *map(_label, results["collections"]), "mean", "mean loss", "greatest loss"]
    means = _means(results, lambda run: float(run["recall"][str(DEPTH)]))
    first = np.array(means[ROWS[0].name])
    rows = [_recall_cells(name, np.array(values), first) for name, values in means.items()]
    for depth in DEPTHS[1:3]:  # what the exact ranking may read instead of rescoring
        deeper = _means(results, lambda run, depth=depth: float(run["recall"][str(depth)]))  # type: ignore[misc]
        rows.append(_recall_cells(f"PQ-256-8, {depth} candidates", np.array(deeper["PQ-256-8"]), first))
    return header, rows


def _recall_cells(name: str, values: NDArray[np.float64], first: NDArray[np.float64]) -> list[str]:
    losses = first - values
    numbers = [*values, values.mean()]
    return [name, *map(_short, numbers), f"{losses.mean():.4f}", f"{losses.max():.4f}"]


def _largest(results: dict[str, Any]) -> str:
    sizes: dict[str, int] = {name: int(one["documents"]) for name, one in results["collections"].items()}
    return max(sizes, key=sizes.__getitem__)


def _cost_caption(results: dict[str, Any]) -> str:
    name, machine = _largest(results), results["machine"]
    used = threads_in_words(results["threads"])
    return (
        f"{_label(name)}, {results['collections'][name]['documents']:,} documents; one query at a time "
        f"on one thread, its {DEPTH} best, the searches taking turns; {machine['processor']}, load "
        f"{machine['load']} at the start. Building is learning and coding on {used}; a codebook's bytes, "
        "once for all FDEs, come on top."
    )


def _cost_table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    header = ["", "bytes an FDE", "smaller", "ms a query", "faster", "building, s"]
    runs = results["collections"][_largest(results)]["runs"]
    first = runs[0][ROWS[0].name]["bytes_per_vector"]
    float_time = np.array([run[ROWS[0].name]["milliseconds"] for run in runs])
    rows = []
    for row in ROWS:
        size = runs[0][row.name]["bytes_per_vector"]
        times = np.array([run[row.name]["milliseconds"] for run in runs])
        seconds = float(np.median([run[row.name]["seconds"] for run in runs]))
        rows.append(
            [
                row.name,
                f"{size:,}",
                f"{first / size:.1f}x",
                f"{np.median(times):.2f}",
                f"{np.median(float_time / times):.1f}x",
                f"{seconds:.1f}",
            ]
        )
    return header, rows


def _label(collection: str) -> str:
    return collection.removeprefix("plaid-")


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
