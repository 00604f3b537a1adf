"""Tables that suit experiments of one kind: losses, candidates, scaling, crossings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from muvera.index.candidates import graph_from
from muvera.index.settings import EXACT_TOKENS

from ..evaluation.summary import Part, Results
from ..runner.scaling import RECALL
from .table_parts import Table, columns_of, make_table, with_interval

__all__ = ["candidates", "crossing", "crossover", "losses", "needed_candidates", "scaling"]

# Sizes of vectors whose number in use is said.
_FLOATS = (256, 1024, 5249)

# Recall that candidates are counted for.
_SHARES = (0.8, 0.9, 0.95)


def losses(results: Results, parts: list[Part]) -> list[Table]:
    """Return what is lost by FDEs, by the depth of reranking and by the graph; the three add up.

    The configuration has one system with exact inner products of FDEs and one with a graph of the same,
    both at several numbers of candidates.
    """
    experiment = parts[0].experiment
    metric = experiment.metrics[0]
    exact = [point for point in experiment.points() if point.entry.build.get("backend") == "exact"]
    graphs = [point for point in experiment.points() if point.entry.build.get("backend") == "hnsw"]
    rows = []
    for name, size, heading in columns_of(parts):

        def values(point: str, name: str = name, size: int = size) -> NDArray[np.float64] | None:
            return results.values.get((experiment.name, name, size, point), {}).get(metric)

        scanned = {point.query["candidates"]: values(point.name) for point in exact}
        deepest = scanned[max(scanned)] if scanned else None
        for point in graphs:
            depth = point.query["candidates"]
            whole, found = scanned.get(depth), values(point.name)
            if deepest is None or whole is None or found is None:
                continue
            lost = (1 - deepest, deepest - whole, whole - found, 1 - found)
            rows.append([heading, str(point.query.get("ef", "")), str(depth), *map(with_interval, lost)])
    header = ["collection", "ef", "candidates", "lost by FDEs", "by the depth", "by the graph", "together"]
    return [make_table(experiment, metric, header, rows)]


def candidates(results: Results, parts: list[Part]) -> list[Table]:
    """Return how many candidates each system needs, and how many times as many as the first system.

    Between the numbers that were asked for, recall is taken to rise with their logarithm.
    """
    experiment = parts[0].experiment
    metric = experiment.metrics[0]
    columns = columns_of(parts)
    rows = []
    for share in _SHARES:
        first: dict[tuple[str, int], float | None] = {}
        for entry in experiment.entries:
            cells = []
            for name, size, _ in columns:
                curve = [
                    (point.query["candidates"], float(np.mean(values[metric])))
                    for point in entry.points()
                    if "candidates" in point.query
                    and (values := results.values.get((experiment.name, name, size, point.name))) is not None
                ]
                needed, cell = needed_candidates(curve, share)
                mine = first.setdefault((name, size), needed)
                if mine is not None and needed is not None and entry is not experiment.entries[0]:
                    cell += f" ({needed / mine:.1f}x)"
                cells.append(cell)
            if any(cells):
                rows.append([f"{entry.label}, {share:.2f}".replace("0.", "."), *cells])
    header = ["system, recall to be reached", *(heading for _, _, heading in columns)]
    return [make_table(experiment, f"{metric}: candidates that reach it", header, rows)]


def needed_candidates(curve: Sequence[tuple[int, float]], share: float) -> tuple[float | None, str]:
    """Return how many candidates reach a recall of `share`, and how that is written.

    Parameters
    ----------
    curve : sequence of (candidates, recall)
    share : float

    Examples
    --------
    >>> needed_candidates([(10, 0.5), (100, 0.9)], 0.7)
    (31.6, '32')
    >>> needed_candidates([(10, 0.5), (100, 0.9)], 0.95)
    (None, 'over 100')
    """
    ordered = sorted(curve)
    if not ordered:
        return None, ""
    before = ordered[0]
    if before[1] >= share:
        return None, f"at most {before[0]}"
    for count, recall in ordered[1:]:
        if recall >= share:
            part = (share - before[1]) / (recall - before[1])
            needed = float(np.exp(np.log(before[0]) + part * np.log(count / before[0])))
            return round(needed, 1), f"{needed:.0f}"
        before = (count, recall)
    return None, f"over {ordered[-1][0]}"


def scaling(results: Results, parts: list[Part]) -> list[Table]:
    """Return time and memory of adding and searching against the number of FDEs."""
    experiment = parts[0].experiment
    header = ["search", "documents", "build, s", "build, us/document", "bytes/document", "resident bytes"]
    header += ["p50, ms", "p95, ms", RECALL]
    rows = []
    for row in results.rows:
        if row["experiment"] != experiment.name:
            continue
        n, resident, recall = row["build"]["n"], row["build"]["resident_bytes"], row["metrics"][RECALL]
        rows.append(
            [
                row["label"],
                f"{n:,}",
                f"{row['build_seconds']:.2f}",
                f"{row['build_seconds'] / n * 1e6:.1f}",
                f"{row['bytes_per_document']:,.0f}",
                "" if resident is None else f"{resident:,.0f}",
                f"{row['latency_ms']['p50']:.3f}",
                f"{row['latency_ms']['p95']:.3f}",
                "" if recall is None else f"{recall['mean']:.3f}",
            ]
        )
    return [make_table(experiment, f"FDEs of {parts[0].collection}, then synthetic ones", header, rows)]


def crossover(results: Results, parts: list[Part]) -> list[Table]:
    """Return from which size on the second system stays faster than the first, and the third than the second.

    The configuration has three systems in the order of the sizes that they are for: all tokens, all vectors,
    a graph of vectors.  Times are median queries; between the measured sizes they are interpolated.
    """
    experiment = parts[0].experiment
    points = [point.name for point in experiment.points()]
    rows = []
    for name in dict.fromkeys(part.collection for part in parts):
        own = sorted((part for part in parts if part.collection == name), key=lambda part: part.size)
        times = [
            [results.times.get((experiment.name, name, part.size, point)) for part in own] for point in points
        ]
        if any(one is None for line in times for one in line):
            continue
        medians = [[float(np.median(one[1])) for one in line if one is not None] for line in times]
        tokens, sizes = [part.tokens for part in own], [part.size for part in own]
        cells = [crossing(tokens, medians[0], medians[1]), crossing(sizes, medians[1], medians[2])]
        rows.append([name, *cells, f"{sizes[-1]:,} documents, {tokens[-1]:,} tokens"])
    if rows:
        in_use = ", ".join(f"{graph_from(floats):,} of {floats:,} floats" for floats in _FLOATS)
        rows.append(["in use", f"{EXACT_TOKENS:,}", in_use, ""])
    header = [
        "collection",
        f"tokens from which on {points[1]} is faster than {points[0]}",
        f"documents from which on {points[2]} is faster than {points[1]}",
        "measured up to",
    ]
    return [make_table(experiment, "where they cross", header, rows)]


def crossing(sizes: Sequence[int], small: Sequence[float], large: Sequence[float]) -> str:
    """Return the size from which on the times `large` stay below the times `small`.

    Examples
    --------
    >>> crossing([10, 20], [1.0, 3.0], [2.0, 2.0])
    '15'
    >>> crossing([10, 20], [1.0, 2.0], [2.0, 2.0])
    'over 20'
    >>> crossing([10, 20], [3.0, 4.0], [2.0, 2.0])
    'at most 10'
    """
    lead = np.array(small) - np.array(large)  # positive where `large` is faster
    if lead[-1] <= 0:
        return f"over {sizes[-1]:,}"
    behind = np.flatnonzero(lead <= 0)
    if not len(behind):
        return f"at most {sizes[0]:,}"
    last = int(behind[-1])
    share = -lead[last] / (lead[last + 1] - lead[last])
    return f"{sizes[last] + share * (sizes[last + 1] - sizes[last]):,.0f}"
