"""A tuning in sentences: the table, the choice, and its limits."""

from __future__ import annotations

import textwrap

from ..index.candidates import graph_from
from .result import TunedRow, Tuning

__all__ = ["render"]

_WIDTH = 96


def render(tuning: Tuning) -> str:
    """Return a tuning as lines for people."""
    sentences = [_choice(tuning), _target(tuning), _graph(tuning), *_limits(tuning)]
    lines = [*_measured(tuning), "", *_table(tuning), ""]
    for sentence in sentences:
        if sentence:
            lines += textwrap.wrap(sentence, _WIDTH, initial_indent="- ", subsequent_indent="  ")
    return "\n".join(lines)


def _measured(found: Tuning) -> list[str]:
    source = "windows of document tokens" if found.pseudo_queries else "given"
    return [
        f"documents   {found.documents:,}, of which {found.sampled_documents:,} were measured",
        f"queries     {found.queries + found.held_out_queries:,}, {source}: {found.queries:,} for selection, "
        f"{found.held_out_queries:,} held out",
        f"recall      of the exact ten best; held out: among {found.candidates} candidates; mean: of that and "
        "of half as many candidates",
    ]


def _table(found: Tuning) -> list[str]:
    """Return the rows on the Pareto front, and the choice with its mark."""
    rows = [row for row in found.rows if row in found.pareto or _is_choice(row, found)]
    wide = max(len(row.name) for row in rows)
    header = f"  {'':{wide}}  {'stored as':>9}  {'floats':>6}  {'bytes':>7}"
    lines = [f"{header}  mean recall  held out (95 %)      ms per document  ms per query"]
    for row in rows:
        mark = "*" if _is_choice(row, found) else " "
        low, high = row.interval
        lines.append(
            f"{mark} {row.name:<{wide}}  {row.storage.name:>9}  {row.floats:>6,}  {row.bytes:>7,}  "
            f"{row.mean_recall:>11.3f}  {row.held_out:.3f} ({low:.3f}-{high:.3f})"
            f"  {1e3 * row.encode_seconds:>15.2f}  {1e3 * row.query_seconds:>12.2f}"
        )
    return lines


def _is_choice(row: TunedRow, found: Tuning) -> bool:
    return row.config == found.choice.config and row.storage == found.choice.storage


def _choice(found: Tuning) -> str:
    row = found.choice
    low, high = row.interval
    maps = "" if row in found.rows else ", with maps of its own size; the table's are columns of larger ones"
    return (
        f"Use {row.name} stored as {row.storage.name}, {row.bytes:,} bytes per document: held-out queries "
        f"estimate its recall of the exact ten best among {found.candidates} candidates as "
        f"{row.held_out:.1%} ({low:.1%} to {high:.1%}){maps}."
    )


def _target(found: Tuning) -> str:
    if found.target_recall is None:
        return ""
    if not found.target_reached:
        start = (
            f"No configuration reaches {found.target_recall:.1%} among {found.candidates} candidates; this one "
            "has the highest recall."
        )
        if found.min_candidates is None:
            return f"{start} It does not reach it among {max(found.choice.recall)} candidates either."
        return f"{start} It reaches it among {found.min_candidates} candidates."
    reached = (
        f"It is the smallest that reaches {found.target_recall:.1%} with the queries for selection; "
        f"{found.min_candidates} is the smallest measured number of candidates with which it does."
    )
    if found.choice.held_out < found.target_recall:
        reached += (
            " The recall of the held-out queries is lower than the target: to be sure, set a higher target or "
            "rank more candidates."
        )
    return reached


def _graph(found: Tuning) -> str:
    if found.graph_recall is None:
        return ""
    return (
        f"From {graph_from(found.choice.floats):,} documents on an index has a graph: with m={found.hnsw['m']} and "
        f"ef={found.hnsw['ef']} it finds {found.graph_recall:.1%} of the exact best vectors of the sample, "
        "and less of more vectors."
    )


def _limits(found: Tuning) -> list[str]:
    sentences = []
    if found.documents > found.sampled_documents:
        sentences.append(
            f"Recall was measured among {found.sampled_documents:,} documents: among all "
            f"{found.documents:,} the same number of candidates finds less, so rerank more."
        )
    if found.pseudo_queries:
        sentences.append(
            "The queries are windows of document tokens, each without its source document. Give real queries "
            "to be sure."
        )
    other = found.pseudo_query_choice if found.target_recall is None else None
    if other is not None and other.held_out != found.choice.held_out:
        sentences.append(
            f"Windows of documents in place of your queries would have selected {other.name} stored as "
            f"{other.storage.name}, {other.bytes:,} bytes, where held-out queries find {other.held_out:.1%}."
        )
    if found.exact_search:
        sentences.append(
            "The collection is so small that an index reads all tokens and is exact: it uses the configuration "
            "once the collection has grown, or with exact_tokens=0."
        )
    return sentences
