"""The tables of what :mod:`experiments.quality` measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from .quality import DEPTHS, TARGETS
from .report.stored_results import markdown_table, text_table

__all__ = ["collection_table", "full_markdown", "overview_table", "short_markdown"]

Results = dict[str, Any]

#: Depth of the overviews: what the exact ranking that follows reads at least.
DEPTH = 50

#: Rows of the short table, by group.
_SHORT_GROUPS = ("together", "size")

_LABELS = {"plaid-colbertv2-lotte500": "colbertv2-lotte500"}


def collection_table(results: Results, name: str) -> str:
    """Return one collection's table for the terminal: mean and standard deviation over seeds."""
    rows = [
        [row["name"], *(f"{_mean(row, depth)} ({np.std(row['recall'][str(depth)]):.3f})" for depth in DEPTHS)]
        for row in results[name]["rows"]
    ]
    if name in TARGETS:
        rows.append(["target of the default", "", _short(TARGETS[name]), ""])
    header = f"{name}: {results[name]['documents']:,} documents, {results[name]['queries']:,} queries"
    return f"{header}\n{text_table(['', *(f'@{depth}' for depth in DEPTHS)], rows)}"


def overview_table(results: Results) -> str:
    """Return all collections' recall at 50 for the terminal."""
    return text_table(*_overview(results, None))


def short_markdown(results: Results) -> str:
    """Return the README's table."""
    header, rows = _overview(results, _SHORT_GROUPS)
    return f"{_caption(results)}\n\n{markdown_table(header, rows)}"


def full_markdown(results: Results) -> str:
    """Return every row, then every collection's deviation."""
    header, rows = _overview(results, None)
    spread = [np.std(row["recall"][str(DEPTH)]) for name in results for row in results[name]["rows"]]
    note = f"Standard deviations over seeds: median {np.median(spread):.3f}, largest {max(spread):.3f}."
    return f"{_caption(results)} {note}\n\n{markdown_table(header, rows)}"


def _caption(results: Results) -> str:
    seeds = {len(row["recall"][str(DEPTH)]) for name in results for row in results[name]["rows"]}
    return (
        f"Share of exact Chamfer's top 10 among the first {DEPTH} by FDE (10-recall@{DEPTH}), mean over "
        f"{max(seeds)} seeds; exact FDE search unless said otherwise, 10,240 floats unless said otherwise."
    )


def _overview(results: Results, groups: tuple[str, ...] | None) -> tuple[list[str], list[list[str]]]:
    names = list(results)
    by_name = {name: {row["name"]: row for row in results[name]["rows"]} for name in names}
    rows = []
    for row in results[names[0]]["rows"]:
        if groups is not None and row["group"] not in groups:
            continue
        found = [by_name[name].get(row["name"]) for name in names]
        values = [float(np.mean(one["recall"][str(DEPTH)])) for one in found if one is not None]
        cells = ["" if one is None else _mean(one, DEPTH) for one in found]
        rows.append([row["name"], *cells, _short(float(np.mean(values))), _short(min(values))])
    if any(name in TARGETS for name in names):
        targets = [_short(TARGETS[name]) if name in TARGETS else "" for name in names]
        rows.append(["target of the default", *targets, "", ""])
    return ["", *(_LABELS.get(name, name) for name in names), "mean", "worst"], rows


def _mean(row: dict[str, Any], depth: int) -> str:
    return _short(float(np.mean(row["recall"][str(depth)])))


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
