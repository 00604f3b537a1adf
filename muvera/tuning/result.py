"""What a tuning found: every measured configuration, and the one to use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..encoders.base import EncoderConfig
from ..utils.atomic_files import write_json
from .search_space import Storage
from .successive_halving import fronts

__all__ = ["TunedRow", "Tuning", "choose"]


@dataclass(frozen=True)
class TunedRow:
    """One configuration, measured on the whole sample.

    Parameters
    ----------
    name : str
    config : FDEConfig or LearnedConfig
    storage : Storage
        How the vectors are kept.
    bytes : int
        Of a document's vector, its graph links included where there will be a graph.
    recall : dict of int to float
        Recall by number of candidates, of the queries that choose.
    mean_recall : float
        The mean of recall among the tuning's candidates and among half as many, by which rows are
        compared: where all find nearly everything, half as many still tell them apart.
    by_windows : float or None
        The mean recall of windows of documents, measured where real queries were given, to see
        what these would have chosen.
    held_out : float
        Recall at the tuning's candidates, of queries that had no say.
    interval : tuple of float
        95 per cent of what other queries of the kind would have given (bootstrap).
    encode_seconds, query_seconds : float
        A document's encoding; a query's encoding and its search of the sample.  They depend on
        the machine and choose nothing.
    """

    name: str
    config: EncoderConfig
    storage: Storage
    bytes: int
    recall: dict[int, float]
    mean_recall: float
    by_windows: float | None
    held_out: float
    interval: tuple[float, float]
    encode_seconds: float
    query_seconds: float

    @property
    def floats(self) -> int:
        """Floats of a vector before it is kept in fewer bytes."""
        return self.config.vector_dimension

    @property
    def settings(self) -> dict[str, Any]:
        """What :class:`muvera.MuveraIndex` takes besides the configuration."""
        settings: dict[str, Any] = {"backend": self.storage.backend}
        return settings | ({"pq": dict(self.storage.pq)} if self.storage.pq else {})


@dataclass(frozen=True)
class Tuning:
    """Result of :func:`muvera.tune`: every measured configuration, and the one to use.

    Parameters
    ----------
    documents, sampled_documents : int
        Those with tokens, and those that were measured.
    queries, held_out_queries : int
        Those that chose, and those that had no say.
    pseudo : bool
        Whether both are windows of documents, for want of real ones.
    candidates : int
        How many a search is to rank exactly.
    target_recall : float or None
    reached : bool or None
        Whether the queries that chose find as much as the target; ``chosen.held_out`` is what the
        others find.
    enough_candidates : int or None
        The fewest candidates, of those tried, with which the chosen configuration reaches the
        target with the queries that chose; None where none does or there is no target.
    chosen : TunedRow
    hnsw : dict
        m and ef of the graph, empty where no graph is needed.
    graph_recall : float or None
        Share of the exact best vectors that such a graph of the sample found.
    rows : tuple of TunedRow
        All that were left after halving, by bytes.  Smaller sizes of a learned map are measured as
        the leading columns of its largest; `chosen` is measured with maps of its own.
    exact : bool
        Whether the collection is so small that an index reads all tokens instead.
    text : str
        The table and the choice, in lines for people.
    """

    documents: int
    sampled_documents: int
    queries: int
    held_out_queries: int
    pseudo: bool
    candidates: int
    target_recall: float | None
    reached: bool | None
    enough_candidates: int | None
    chosen: TunedRow
    hnsw: dict[str, int]
    graph_recall: float | None
    rows: tuple[TunedRow, ...]
    exact: bool
    text: str = field(default="", compare=False, repr=False)

    @property
    def config(self) -> EncoderConfig:
        """The chosen encoder's configuration."""
        return self.chosen.config

    @property
    def settings(self) -> dict[str, Any]:
        """What ``MuveraIndex.build(documents, tuning.config, **tuning.settings)`` takes."""
        return self.chosen.settings | ({"hnsw": dict(self.hnsw)} if self.hnsw else {})

    @property
    def pareto(self) -> tuple[TunedRow, ...]:
        """The rows that no other beats with as few bytes, by the queries that chose."""
        values = [row.mean_recall for row in self.rows]
        return tuple(self.rows[i] for i in fronts([row.bytes for row in self.rows], values)[0])

    def within(
        self, *, max_bytes: int | None = None, max_floats: int | None = None, by_windows: bool = False
    ) -> TunedRow:
        """Return the row that finds most within a limit, by the queries that chose.

        Parameters
        ----------
        max_bytes, max_floats : int, optional
        by_windows : bool
            Let windows of documents choose, which were measured beside given queries.

        Raises
        ------
        ValueError
            Where none is so small, or no windows were measured.
        """
        rows = self._as_windows_see() if by_windows else self.rows
        found = choose(rows, self.candidates, None, max_bytes, max_floats)
        return self.rows[rows.index(found)]

    @property
    def windows_choice(self) -> TunedRow | None:
        """What windows of documents say finds most of the rows, where real queries were given."""
        if self.pseudo:
            return None
        return self.within(by_windows=True)

    def _as_windows_see(self) -> tuple[TunedRow, ...]:
        if self.pseudo:
            raise ValueError("Windows of documents chose already, for no queries were given. Give tune some.")
        return tuple(replace(row, mean_recall=row.by_windows or 0.0) for row in self.rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the configuration as JSON that ``muvera index --config`` takes."""
        write_json(Path(path), {**self.config.to_dict(), **self.settings})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        pareto = self.pareto
        return {
            "documents": self.documents,
            "sampled_documents": self.sampled_documents,
            "queries": self.queries,
            "held_out_queries": self.held_out_queries,
            "pseudo": self.pseudo,
            "candidates": self.candidates,
            "target_recall": self.target_recall,
            "reached": self.reached,
            "enough_candidates": self.enough_candidates,
            "config": self.config.to_dict(),
            "settings": self.settings,
            "graph_recall": self.graph_recall,
            "exact": self.exact,
            "chosen": _plain(self.chosen, True),
            "rows": [_plain(row, row in pareto) for row in self.rows],
        }


def choose(
    rows: Sequence[TunedRow],
    candidates: int,
    target_recall: float | None,
    max_bytes: int | None = None,
    max_floats: int | None = None,
) -> TunedRow:
    """Return the row to use: the smallest that reaches the target, else the one that finds most.

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
        Where none is so small.
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
        # Of the same bytes, the one that finds more.
        return max((row for row in good if row.bytes == good[0].bytes), key=lambda row: row.mean_recall)
    return max(inside, key=lambda row: row.mean_recall)


def _plain(row: TunedRow, pareto: bool) -> dict[str, Any]:
    return {
        "name": row.name,
        "storage": row.storage.name,
        "floats": row.floats,
        "bytes": row.bytes,
        "pareto": pareto,
        "recall": {str(depth): value for depth, value in row.recall.items()},
        "mean_recall": row.mean_recall,
        "by_windows": row.by_windows,
        "held_out": row.held_out,
        "interval": list(row.interval),
        "encode_seconds": row.encode_seconds,
        "query_seconds": row.query_seconds,
        "config": row.config.to_dict(),
    }
