"""A tuning in plain words: the table, the choice, and what to beware of."""

from __future__ import annotations

import textwrap

from ..index.candidates import GRAPH_FROM
from .result import TunedRow, Tuning

__all__ = ["render"]

_WIDTH = 96


def render(found: Tuning) -> str:
    """Return `found` as lines for people."""
    sentences = [_choice(found), _target(found), _graph(found), *_beware(found)]
    lines = [*_measured(found), "", *_table(found), ""]
    for sentence in sentences:
        if sentence:
            lines += textwrap.wrap(sentence, _WIDTH, initial_indent="- ", subsequent_indent="  ")
    return "\n".join(lines)


def _measured(found: Tuning) -> list[str]:
    source = "windows of document tokens" if found.pseudo else "given"
    return [
        f"documents   {found.documents:,}, of which {found.sampled_documents:,} were measured",
        f"queries     {found.queries + found.held_out_queries:,}, {source}: {found.queries:,} chose, "
        f"{found.held_out_queries:,} were held out",
        f"recall      of the exact ten best: held out, among {found.candidates} candidates; the mean is of "
        "that and of half as many",
    ]


def _table(found: Tuning) -> list[str]:
    """Return the rows that no other beats, and the chosen one with its mark."""
    rows = [row for row in found.rows if row in found.pareto or _is_chosen(row, found)]
    wide = max(len(row.name) for row in rows)
    header = f"  {'':{wide}}  {'kept as':>7}  {'floats':>6}  {'bytes':>7}"
    lines = [f"{header}  mean recall  held out (95 %)      ms a document  ms a query"]
    for row in rows:
        mark = "*" if _is_chosen(row, found) else " "
        low, high = row.interval
        lines.append(
            f"{mark} {row.name:<{wide}}  {row.storage.name:>7}  {row.floats:>6,}  {row.bytes:>7,}  "
            f"{row.mean_recall:>11.3f}  {row.held_out:.3f} ({low:.3f}-{high:.3f})"
            f"  {1e3 * row.encode_seconds:>13.2f}  {1e3 * row.query_seconds:>10.2f}"
        )
    return lines


def _is_chosen(row: TunedRow, found: Tuning) -> bool:
    return row.config == found.chosen.config and row.storage == found.chosen.storage


def _choice(found: Tuning) -> str:
    row = found.chosen
    low, high = row.interval
    own = "" if row in found.rows else ", with maps of its own size; the table's are columns of larger ones"
    return (
        f"Use {row.name} kept as {row.storage.name}, {row.bytes:,} bytes a document: queries that had no say "
        f"find {row.held_out:.1%} of the exact ten best among {found.candidates} candidates "
        f"({low:.1%} to {high:.1%}){own}."
    )


def _target(found: Tuning) -> str:
    if found.target_recall is None:
        return ""
    most = max(found.chosen.recall)
    if not found.reached:
        start = (
            f"Nothing that was tried reaches {found.target_recall:.1%} among {found.candidates} candidates; "
            "this finds most."
        )
        if found.enough_candidates is None:
            return f"{start} Neither does it among {most}."
        return f"{start} It does among {found.enough_candidates} candidates."
    reached = (
        f"It is the smallest that reaches {found.target_recall:.1%} with the queries that chose; "
        f"{found.enough_candidates} candidates are the fewest that do."
    )
    if found.chosen.held_out < found.target_recall:
        reached += (
            " Queries that had no say find less than that: to be sure, ask for a higher target or rank more "
            "candidates."
        )
    return reached


def _graph(found: Tuning) -> str:
    if found.graph_recall is None:
        return ""
    return (
        f"From {GRAPH_FROM:,} documents on there is a graph: m={found.hnsw['m']} and ef={found.hnsw['ef']} "
        f"find {found.graph_recall:.1%} of the exact best vectors of the sample, and less of more."
    )


def _beware(found: Tuning) -> list[str]:
    sentences = []
    if found.documents > found.sampled_documents:
        sentences.append(
            f"That is among {found.sampled_documents:,} documents: among all {found.documents:,} the same "
            "number of candidates finds less, so rerank more."
        )
    if found.pseudo:
        sentences.append(
            "The queries are windows of document tokens, each without its own document. They stand in for "
            "real ones; give real queries to be sure."
        )
    windows = found.windows_choice if found.target_recall is None else None
    if windows is not None and windows.held_out != found.chosen.held_out:
        sentences.append(
            f"Without queries, windows of documents would have chosen {windows.name} kept as "
            f"{windows.storage.name}, {windows.bytes:,} bytes, where held-out queries find "
            f"{windows.held_out:.1%}."
        )
    if found.exact:
        sentences.append(
            "The collection is so small that an index reads all tokens and is exact: the configuration "
            "counts once it grows, or with exact_tokens=0."
        )
    return sentences
