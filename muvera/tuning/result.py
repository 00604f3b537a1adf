"""Plain data of a tuning: every measured configuration, and the one to use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..encoders.base import EncoderConfig
from ..utils.atomic_files import write_json
from .search_space import Storage
from .successive_halving import pareto_fronts

__all__ = ["TunedRow", "Tuning", "select_row"]


@dataclass(frozen=True)
class TunedRow:
    """One encoder in one storage, measured on the whole sample.

    Parameters
    ----------
    name : str
    config : FDEConfig, LearnedConfig or MomentsConfig
    storage : Storage
        How the vectors are stored.
    bytes : int
        Of a document's vector, its graph links included where there will be a graph.
    recall : dict of int to float
        Recall by number of candidates, of the queries for selection.
    mean_recall : float
        Mean of recall among the tuning's candidates and among half as many, by which rows are
        compared: where all find nearly everything, half as many still tell them apart.
    pseudo_query_recall : float or None
        Mean recall of pseudo-queries, measured where real queries were given.
    held_out : float
        Recall at the tuning's candidates, of the held-out queries.
    interval : tuple of float
        95 per cent confidence interval of `held_out` (bootstrap over queries).
    encode_seconds, query_seconds : float
        Encoding a document; encoding a query and searching the sample.  They depend on the
        machine and have no influence on the choice.
    """

    name: str
    config: EncoderConfig
    storage: Storage
    bytes: int
    recall: dict[int, float]
    mean_recall: float
    pseudo_query_recall: float | None
    held_out: float
    interval: tuple[float, float]
    encode_seconds: float
    query_seconds: float

    @property
    def floats(self) -> int:
        """Floats of a vector before it is stored in fewer bytes."""
        return self.config.vector_dimension

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of :class:`muvera.MuveraIndex` besides the configuration."""
        return {"backend": self.storage.backend}


@dataclass(frozen=True)
class Tuning:
    """Result of :func:`muvera.tune`: every measured configuration, and the one to use.

    Parameters
    ----------
    documents, sampled_documents : int
        Those with tokens, and those that were measured.
    queries, held_out_queries : int
        Those for selection, and those held out.
    pseudo_queries : bool
        Whether both are windows of documents, because no real queries were given.
    candidates : int
        Documents that a search is to rank exactly.
    target_recall : float or None
    target_reached : bool or None
        Whether the choice reaches the target with the queries for selection; ``choice.held_out``
        is the recall of the others.
    min_candidates : int or None
        Smallest measured number of candidates with which the choice reaches the target with the
        queries for selection; None where none does or there is no target.
    choice : TunedRow
        The encoder and storage to use.
    hnsw : dict
        m and ef of the graph; empty where no graph is needed.
    graph_recall : float or None
        Share of the exact best vectors that such a graph of the sample finds.
    rows : tuple of TunedRow
        All that were left after halving, by bytes.  Smaller sizes of a learned map are measured as
        the leading columns of its largest; `choice` is measured with maps of its own.
    exact_search : bool
        Whether the collection is so small that an index reads all tokens and needs no vectors.
    text : str
        The table and the choice, in lines for people.
    """

    documents: int
    sampled_documents: int
    queries: int
    held_out_queries: int
    pseudo_queries: bool
    candidates: int
    target_recall: float | None
    target_reached: bool | None
    min_candidates: int | None
    choice: TunedRow
    hnsw: dict[str, int]
    graph_recall: float | None
    rows: tuple[TunedRow, ...]
    exact_search: bool
    text: str = field(default="", compare=False, repr=False)

    @property
    def config(self) -> EncoderConfig:
        """Configuration of the encoder to use."""
        return self.choice.config

    @property
    def settings(self) -> dict[str, Any]:
        """Settings for ``MuveraIndex.build(documents, tuning.config, **tuning.settings)``."""
        return self.choice.settings | ({"hnsw": dict(self.hnsw)} if self.hnsw else {})

    @property
    def pareto(self) -> tuple[TunedRow, ...]:
        """Rows whose recall no row of equal or fewer bytes exceeds, by the queries for selection."""
        values = [row.mean_recall for row in self.rows]
        return tuple(self.rows[i] for i in pareto_fronts([row.bytes for row in self.rows], values)[0])

    def within(
        self, *, max_bytes: int | None = None, max_floats: int | None = None, by_pseudo_queries: bool = False
    ) -> TunedRow:
        """Return the row of the highest recall within a limit, by the queries for selection.

        Parameters
        ----------
        max_bytes, max_floats : int, optional
        by_pseudo_queries : bool
            Compare the recall of the pseudo-queries, which were measured besides given queries.

        Raises
        ------
        ValueError
            Where no row is so small, or pseudo-queries were not measured besides real ones.
        """
        rows = self._by_pseudo_queries() if by_pseudo_queries else self.rows
        found = select_row(rows, self.candidates, None, max_bytes, max_floats)
        return self.rows[rows.index(found)]

    @property
    def pseudo_query_choice(self) -> TunedRow | None:
        """Row of the highest recall by pseudo-queries; None where no real queries were given."""
        if self.pseudo_queries:
            return None
        return self.within(by_pseudo_queries=True)

    def _by_pseudo_queries(self) -> tuple[TunedRow, ...]:
        if self.pseudo_queries:
            raise ValueError(
                "The rows were selected by pseudo-queries already, because no queries were given. Give tune "
                "real queries to compare both."
            )
        return tuple(replace(row, mean_recall=row.pseudo_query_recall or 0.0) for row in self.rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the configuration as a JSON file that ``muvera index --config`` reads."""
        write_json(Path(path), {**self.config.to_dict(), **self.settings})

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON, the text among them."""
        pareto = self.pareto
        return {
            "documents": self.documents,
            "sampled_documents": self.sampled_documents,
            "queries": self.queries,
            "held_out_queries": self.held_out_queries,
            "pseudo_queries": self.pseudo_queries,
            "candidates": self.candidates,
            "target_recall": self.target_recall,
            "target_reached": self.target_reached,
            "min_candidates": self.min_candidates,
            "config": self.config.to_dict(),
            "settings": self.settings,
            "graph_recall": self.graph_recall,
            "exact_search": self.exact_search,
            "choice": _plain(self.choice, True),
            "rows": [_plain(row, row in pareto) for row in self.rows],
            "text": self.text,
        }


def select_row(
    rows: Sequence[TunedRow],
    candidates: int,
    target_recall: float | None,
    max_bytes: int | None = None,
    max_floats: int | None = None,
) -> TunedRow:
    """Return the smallest row that reaches the target, or else the row of the highest recall.

    Parameters
    ----------
    rows : sequence of TunedRow
        At least one.
    candidates : int
    target_recall : float, optional
    max_bytes, max_floats : int, optional

    Raises
    ------
    ValueError
        Where no row is within the limits.
    """
    inside = [
        row
        for row in rows
        if (max_bytes is None or row.bytes <= max_bytes) and (max_floats is None or row.floats <= max_floats)
    ]
    if not inside:
        limit, least = (
            (f"max_bytes={max_bytes}", min(row.bytes for row in rows))
            if max_floats is None
            else (f"max_floats={max_floats}", min(row.floats for row in rows))
        )
        raise ValueError(f"Nothing is as small as {limit}. The smallest that was measured is {least}.")
    inside.sort(key=lambda row: (row.bytes, row.floats))
    good = [row for row in inside if target_recall is not None and row.recall[candidates] >= target_recall]
    if good:
        # Of the same bytes, the one of the higher recall.
        return max((row for row in good if row.bytes == good[0].bytes), key=lambda row: row.mean_recall)
    return max(inside, key=lambda row: row.mean_recall)


def _plain(row: TunedRow, pareto: bool) -> dict[str, Any]:
    return {
        "name": row.name,
        "storage": row.storage.name,
        "floats": row.floats,
        "bytes": row.bytes,
        "pareto": pareto,
        "recall": {str(cutoff): value for cutoff, value in row.recall.items()},
        "mean_recall": row.mean_recall,
        "pseudo_query_recall": row.pseudo_query_recall,
        "held_out": row.held_out,
        "interval": list(row.interval),
        "encode_seconds": row.encode_seconds,
        "query_seconds": row.query_seconds,
        "config": row.config.to_dict(),
    }
