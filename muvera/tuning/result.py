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

_WIDTH = 79


@dataclass(frozen=True)
class TunedRow:
    """One encoder, measured on the whole sample.

    Parameters
    ----------
    name : str
    config : MomentsConfig, LearnedConfig or FDEConfig
    bytes : int
        Bytes of a document's vector in the index.
    recall : float
        Recall among the tuning's candidates, measured with the selection queries.
    mean_recall : float
        Mean of `recall` and the recall among half as many candidates; rows are compared by it.
    held_out : float
        Recall among the tuning's candidates, measured with the held-out queries.
    interval : tuple of float
        95 per cent confidence interval of `held_out` (bootstrap over queries).
    encode_seconds, query_seconds : float
        Time to encode a document and a query.  They do not influence the choice.
    """

    name: str
    config: EncoderConfig
    bytes: int
    recall: float
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
        return {**vars(self), "config": self.config.to_dict(), "floats": self.floats}


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
        Recall that the choice should reach.
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

    def within(self, max_bytes: int) -> TunedRow:
        """Return the row with the highest `mean_recall` among those of at most `max_bytes` bytes.

        Raises
        ------
        ValueError
            If no row is small enough.
        """
        rows = [row for row in self.rows if row.bytes <= max_bytes]
        if not rows:
            least = min(row.bytes for row in self.rows)
            raise ValueError(
                f"max_bytes must be at least {least}, the bytes of the smallest row, got {max_bytes}."
            )
        return select_row(rows, None)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the configuration as a JSON file for ``muvera index --config``."""
        write_json(Path(path), self.config.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON, with the text."""
        rows = [row.to_dict() for row in self.rows]
        return {**vars(self), "choice": self.choice.to_dict(), "rows": rows, "text": self.text}

    @property
    def text(self) -> str:
        """The table and the choice as text, several lines."""
        source = "windows of documents" if self.pseudo_queries else "given"
        lines = [
            f"documents   {self.documents:,}, {self.sampled_documents:,} of them measured",
            f"queries     {self.queries + self.held_out_queries:,}, {source}: {self.queries:,} for selection, "
            f"{self.held_out_queries:,} held out",
            f"recall      of the exact ten best among {self.candidates} candidates, of held-out queries",
            "",
            *self._table(),
            "",
        ]
        for sentence in self._sentences():
            lines += textwrap.wrap(sentence, _WIDTH, initial_indent="- ", subsequent_indent="  ")
        return "\n".join(lines)

    def _table(self) -> list[str]:
        wide = max(len(row.name) for row in self.rows)
        lines = [f"  {'':{wide}}   floats    bytes  recall (95 %)        ms: text  query"]
        for row in self.rows:
            low, high = row.interval
            lines.append(
                f"{'*' if row == self.choice else ' '} {row.name:<{wide}}  {row.floats:>7,}  {row.bytes:>7,}  "
                f"{row.held_out:.3f} ({low:.3f}-{high:.3f})"
                f"  {1e3 * row.encode_seconds:>8.2f}  {1e3 * row.query_seconds:>5.2f}"
            )
        return lines

    def _sentences(self) -> list[str]:
        """Return the choice, whether it reaches the target, and the limits of the measurement."""
        row, target = self.choice, self.target_recall
        low, high = row.interval
        sentences = [
            f"Use {row.name}, {row.bytes:,} bytes per document: held-out queries estimate its recall among "
            f"{self.candidates} candidates as {row.held_out:.1%} ({low:.1%} to {high:.1%})."
        ]
        if target is not None and row.recall < target:
            sentences.append(f"No encoder reaches {target:.1%}. Rank more candidates.")
        elif target is not None:
            sentences.append(
                f"It is the smallest encoder that reaches {target:.1%} on the selection queries."
            )
        if self.documents > self.sampled_documents:
            sentences.append(
                f"Among all {self.documents:,} documents the same number of candidates finds less. Rank more "
                "candidates."
            )
        if self.pseudo_queries:
            sentences.append(
                "Real queries can be harder than windows of documents. Pass real queries to be sure."
            )
        if self.exact_search:
            sentences.append(
                "The collection is so small that an index reads all tokens and is exact. It uses the encoder "
                "once the collection has grown, or with exact_tokens=0."
            )
        return sentences


def select_row(rows: Sequence[TunedRow], target_recall: float | None) -> TunedRow:
    """Return the smallest row that reaches the target, or else the row with the highest `mean_recall`."""
    ordered = sorted(rows, key=lambda row: (row.bytes, row.floats))
    good = [row for row in ordered if target_recall is not None and row.recall >= target_recall]
    if good:
        ordered = [row for row in good if row.bytes == good[0].bytes]
    return max(ordered, key=lambda row: row.mean_recall)
