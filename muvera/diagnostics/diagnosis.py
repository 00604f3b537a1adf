"""Plain data of a diagnosis: what was measured, and the configuration to use."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..encoders.fde.config import FDEConfig
from .geometry import CellUse, TokenGeometry

__all__ = ["Diagnosis", "MaxSimSpread", "MeasuredRecall"]


@dataclass(frozen=True)
class MaxSimSpread:
    """Exact Chamfer a query token, a mean over queries: how far the best stand out.

    Parameters
    ----------
    best, tenth, median : float
        Of the best document, the tenth best, and the median one.
    """

    best: float
    tenth: float
    median: float


@dataclass(frozen=True)
class MeasuredRecall:
    """What one configuration's FDEs found in the sample.

    Parameters
    ----------
    name : str
    config : FDEConfig
    recall : dict of int to float or None
        Share of the exact 10 best among the first 10, 50 and 100 by FDE; None where the
        sample has fewer than twice as many documents, of which nearly all would be read.
    """

    name: str
    config: FDEConfig
    recall: dict[int, float | None]


@dataclass(frozen=True)
class Diagnosis:
    """Result of :func:`muvera.diagnose`: all measures, the recommendation, and both as text.

    Parameters
    ----------
    documents, empty_documents, sampled_documents : int
        All, those without tokens, and those measured.
    tokens : int
        Of all documents.
    tokens_per_document : dict
        min, median, p95 and max over all documents that have tokens.
    queries : int
        Queries measured.
    query_tokens : float
        Their median number of tokens.
    pseudo : bool
        Whether they are windows of document tokens, for want of real ones.
    kind : {"ordinary", "wide cone", "narrow cone"}
        By the mean cosine of token pairs: up to .3, up to .5, above.
    geometry : TokenGeometry
        Of the documents' tokens.
    query_cosine : float or None
        Mean cosine of query tokens with document tokens; None for pseudo-queries.
    maxsim : MaxSimSpread
    config : FDEConfig
        Whose cells were looked at.
    cells, centered_cells : CellUse
        Cells of its hyperplanes, without and with centering.
    recall : tuple of MeasuredRecall
        The paper's preset, the default in two sizes, and `config` where it is another.
    recommended : MeasuredRecall
        That of the default's sizes to use: the smaller one unless it loses recall.
    exact : bool
        Whether the collection is so small that an index searches it without FDEs.
    text : str
        The diagnosis in plain words, several lines.
    """

    documents: int
    empty_documents: int
    sampled_documents: int
    tokens: int
    tokens_per_document: dict[str, float]
    queries: int
    query_tokens: float
    pseudo: bool
    kind: str
    geometry: TokenGeometry
    query_cosine: float | None
    maxsim: MaxSimSpread
    config: FDEConfig
    cells: CellUse
    centered_cells: CellUse
    recall: tuple[MeasuredRecall, ...]
    recommended: MeasuredRecall
    exact: bool
    text: str = field(default="", compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON, the text among them."""
        values = asdict(self)
        values["config"] = self.config.to_dict()
        values["geometry"]["norms"] = list(self.geometry.norms)
        values["recall"] = [_plain(row) for row in self.recall]
        values["recommended"] = _plain(self.recommended)
        return values

    def __str__(self) -> str:
        return self.text


def _plain(row: MeasuredRecall) -> dict[str, Any]:
    return {
        "name": row.name,
        "floats": row.config.vector_dimension,
        "recall": {str(depth): value for depth, value in row.recall.items()},
        "config": row.config.to_dict(),
    }
