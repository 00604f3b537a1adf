"""Tuning: the measured configurations, the chosen one, and both as text."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..encoders.base import EncoderConfig
from ..utils.atomic_files import write_json

__all__ = ["TunedRow", "Tuning", "select_row"]

_WIDTH = 96


@dataclass(frozen=True)
class TunedRow:
    """One encoder, measured on the whole sample.

    Parameters
    ----------
    name : str
    config : MomentsConfig, LearnedConfig or FDEConfig
    bytes : int
        Bytes of a document's vector in the index.
    recall : dict of int to float
        Recall by number of candidates, of the selection queries.
    mean_recall : float
        Mean of recall among the tuning's candidates and among half as many; rows are compared by it.
    held_out : float
        Recall at the tuning's candidates, of the held-out queries.
    interval : tuple of float
        95 per cent confidence interval of `held_out` (bootstrap over queries).
    encode_seconds, query_seconds : float
        Time to encode a document and a query.  They do not influence the choice.
    """

    name: str
    config: EncoderConfig
    bytes: int
    recall: dict[int, float]
    mean_recall: float
    held_out: float
    interval: tuple[float, float]
    encode_seconds: float
    query_seconds: float

    @property
    def floats(self) -> int:
        """Floats of a vector."""
        return self.config.vector_dimension

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        recall = {str(cutoff): value for cutoff, value in self.recall.items()}
        return {**vars(self), "config": self.config.to_dict(), "floats": self.floats, "recall": recall}


@dataclass(frozen=True)
class Tuning:
    """Result of :func:`muvera.tune`.

    Parameters
    ----------
    documents, sampled_documents : int
        Documents with tokens, and those measured.
    queries, held_out_queries : int
        Number of selection queries, and of held-out queries.
    pseudo_queries : bool
        True if both are windows of documents, because no queries were given.
    candidates : int
        Documents that a search will rank exactly.
    target_recall : float or None
    choice : TunedRow
        The encoder to use.
    rows : tuple of TunedRow
        All measured encoders, by bytes.
    exact_search : bool
        True if the collection is so small that an index reads all tokens and needs no vectors.
    """

    documents: int
    sampled_documents: int
    queries: int
    held_out_queries: int
    pseudo_queries: bool
    candidates: int
    target_recall: float | None
    choice: TunedRow
    rows: tuple[TunedRow, ...]
    exact_search: bool

    @property
    def config(self) -> EncoderConfig:
        """Configuration of the encoder to use."""
        return self.choice.config

    @property
    def target_reached(self) -> bool | None:
        """Whether the choice reaches the target with the selection queries; compare ``choice.held_out``."""
        return (
            None if self.target_recall is None else self.choice.recall[self.candidates] >= self.target_recall
        )

    @property
    def min_candidates(self) -> int | None:
        """Smallest measured number of candidates with which the choice reaches the target, if any."""
        target = self.target_recall
        values = self.choice.recall.items()
        return min((n for n, recall in values if target is not None and recall >= target), default=None)

    @property
    def pareto(self) -> tuple[TunedRow, ...]:
        """Rows whose recall no row of equal or fewer bytes exceeds, by the selection queries."""
        front: list[TunedRow] = []
        for row in sorted(self.rows, key=lambda row: (row.bytes, -row.mean_recall)):
            if not front or row.mean_recall > front[-1].mean_recall:
                front.append(row)
        return tuple(front)

    def within(self, max_bytes: int) -> TunedRow:
        """Return the row of the highest recall within a limit, by the selection queries.

        Raises
        ------
        ValueError
            If no row is small enough.
        """
        rows = [row for row in self.rows if row.bytes <= max_bytes]
        if not rows:
            least = min(row.bytes for row in self.rows)
            raise ValueError(f"No configuration has max_bytes={max_bytes}: the smallest has {least} bytes.")
        return select_row(rows, self.candidates, None)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the configuration as a JSON file for ``muvera index --config``."""
        write_json(Path(path), self.config.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON, with the text."""
        front = self.pareto
        return {
            **vars(self),
            "target_reached": self.target_reached,
            "min_candidates": self.min_candidates,
            "config": self.config.to_dict(),
            "choice": {**self.choice.to_dict(), "pareto": self.choice in front},
            "rows": [{**row.to_dict(), "pareto": row in front} for row in self.rows],
            "text": self.text,
        }

    @property
    def text(self) -> str:
        """The table and the choice as text, several lines."""
        lines = [*_measured(self), "", *_table(self), ""]
        for sentence in _sentences(self):
            lines += textwrap.wrap(sentence, _WIDTH, initial_indent="- ", subsequent_indent="  ")
        return "\n".join(lines)


def select_row(rows: Sequence[TunedRow], candidates: int, target_recall: float | None) -> TunedRow:
    """Return the smallest row that reaches the target, or else the row of the highest recall."""
    ordered = sorted(rows, key=lambda row: (row.bytes, row.floats))
    if target_recall is not None:
        good = [row for row in ordered if row.recall[candidates] >= target_recall]
        if good:
            return max((row for row in good if row.bytes == good[0].bytes), key=lambda row: row.mean_recall)
    return max(ordered, key=lambda row: row.mean_recall)


# -- text ---------------------------------------------------------------------


def _measured(tuning: Tuning) -> list[str]:
    source = "windows of documents" if tuning.pseudo_queries else "given"
    return [
        f"documents   {tuning.documents:,}, {tuning.sampled_documents:,} of them measured",
        f"queries     {tuning.queries + tuning.held_out_queries:,}, {source}: {tuning.queries:,} for selection, "
        f"{tuning.held_out_queries:,} held out",
        f"recall      of the exact ten best; held out: among {tuning.candidates} candidates; mean: of that and "
        "among half as many candidates",
    ]


def _table(tuning: Tuning) -> list[str]:
    """Return the rows on the Pareto front, and the choice with a mark."""
    rows = [row for row in tuning.rows if row in tuning.pareto or row == tuning.choice]
    wide = max(len(row.name) for row in rows)
    header = f"  {'':{wide}}  {'floats':>6}  {'bytes':>7}"
    lines = [f"{header}  mean recall  held out (95 %)      ms per document  ms per query"]
    for row in rows:
        mark = "*" if row == tuning.choice else " "
        low, high = row.interval
        lines.append(
            f"{mark} {row.name:<{wide}}  {row.floats:>6,}  {row.bytes:>7,}  "
            f"{row.mean_recall:>11.3f}  {row.held_out:.3f} ({low:.3f}-{high:.3f})"
            f"  {1e3 * row.encode_seconds:>15.2f}  {1e3 * row.query_seconds:>12.2f}"
        )
    return lines


def _sentences(tuning: Tuning) -> list[str]:
    """Return the choice, whether it reaches the target, and the limits of the measurement."""
    row, target, count = tuning.choice, tuning.target_recall, tuning.candidates
    low, high = row.interval
    sentences = [
        f"Use {row.name}, {row.bytes:,} bytes per document: held-out queries estimate its recall of the exact "
        f"ten best among {count} candidates as {row.held_out:.1%} ({low:.1%} to {high:.1%})."
    ]
    if target is not None and tuning.target_reached:
        sentences.append(
            f"It is the smallest that reaches {target:.1%} with the selection queries; it needs at least "
            f"{tuning.min_candidates} candidates."
        )
        if row.held_out < target:
            sentences.append(
                "Held-out recall is below the target: set a higher target or rank more candidates."
            )
    elif target is not None:
        reached = tuning.min_candidates
        often = f"not even among {max(row.recall)}" if reached is None else f"only among {reached}"
        sentences.append(
            f"No configuration reaches {target:.1%} among {count} candidates. This one has the highest recall and "
            f"reaches the target {often}."
        )
    if tuning.documents > tuning.sampled_documents:
        sentences.append(
            f"Recall was measured among {tuning.sampled_documents:,} documents: among all {tuning.documents:,} the "
            "same number of candidates finds less, so rank more."
        )
    if tuning.pseudo_queries:
        sentences.append(
            "The queries are windows of documents, each without its source document. Give real queries to be sure."
        )
    if tuning.exact_search:
        sentences.append(
            "The collection is so small that an index reads all tokens and is exact. It uses the configuration "
            "once the collection has grown, or with exact_tokens=0."
        )
    return sentences
