"""Plain data of a diagnosis: what was measured, and the encoder to use."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from ..encoders.base import EncoderConfig
from ..encoders.fde.config import FDEConfig
from .capacity import CellCapacity
from .geometry import CellUse, TokenGeometry
from .intrinsic_dimension import IntrinsicDimension

__all__ = ["Diagnosis", "MaxSimSpread", "MeasuredEncoder"]


@dataclass(frozen=True)
class MaxSimSpread:
    """Exact Chamfer similarity per query token, averaged over queries.

    Parameters
    ----------
    best, tenth, median : float
        Of the best document, the tenth best, and the median one.
    """

    best: float
    tenth: float
    median: float


@dataclass(frozen=True)
class MeasuredEncoder:
    """Recall of one encoder on the sample.

    Parameters
    ----------
    name : str
    config : FDEConfig, LearnedConfig or MomentsConfig
    recall : dict of int to float or None
        Share of the exact 10 best among the first 10, 50 and 100 by the encoder's vectors; None
        where the sample has fewer than twice as many documents: most of them would be candidates.
    """

    name: str
    config: EncoderConfig
    recall: dict[int, float | None]

    @property
    def floats(self) -> int:
        """Floats of a vector."""
        return self.config.vector_dimension

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "name": self.name,
            "floats": self.floats,
            "recall": {str(cutoff): value for cutoff, value in self.recall.items()},
            "config": self.config.to_dict(),
        }


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
    pseudo_queries : bool
        Whether the queries are windows of document tokens, because no real ones were given.
    anisotropy : {"low", "medium", "high"}
        By the mean cosine of token pairs: up to .3, up to .5, above.
    geometry : TokenGeometry
        Of the documents' tokens.
    query_cosine : float or None
        Mean cosine of query tokens with document tokens; None for pseudo-queries.
    maxsim : MaxSimSpread
    config : FDEConfig
        The FDE whose cells were measured.
    cells, centered_cells : CellUse
        Cells of its hyperplanes, without and with centering.
    tokens_per_cell : float
        Mean number of tokens in a cell of a document that has any, with `config`.
    capacity : CellCapacity or None
        Capacity of the cells for these queries and documents; None where tokens do not have
        length 1, or the best documents do not stand out.
    encoders : tuple of MeasuredEncoder
        The paper's preset, the default FDE in two sizes, the mean token, the covariance, the given
        configuration, and compact and learned vectors, which need 256 documents to be fitted on.
    recommended : MeasuredEncoder
        The encoder to use: the smallest vectors among those whose recall at 50 candidates is
        within .02 of the highest.
    intrinsic_dimension : IntrinsicDimension or None
        Of the documents' vectors by the recommended encoder, at length 1; None for fewer than
        100 documents.
    exact_search : bool
        Whether the collection is so small that an index reads all tokens and needs no vectors.
    text : str
        The diagnosis in sentences, several lines.
    """

    documents: int
    empty_documents: int
    sampled_documents: int
    tokens: int
    tokens_per_document: dict[str, float]
    queries: int
    query_tokens: float
    pseudo_queries: bool
    anisotropy: str
    geometry: TokenGeometry
    query_cosine: float | None
    maxsim: MaxSimSpread
    config: FDEConfig
    cells: CellUse
    centered_cells: CellUse
    tokens_per_cell: float
    capacity: CellCapacity | None
    encoders: tuple[MeasuredEncoder, ...]
    recommended: MeasuredEncoder
    intrinsic_dimension: IntrinsicDimension | None
    exact_search: bool
    text: str = field(default="", compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON, the text among them."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name, value in values.items():
            if is_dataclass(value) and name not in ("config", "recommended"):
                values[name] = asdict(value)  # type: ignore[arg-type]
        values["geometry"]["norms"] = list(self.geometry.norms)
        values["config"] = self.config.to_dict()
        values["encoders"] = [encoder.to_dict() for encoder in self.encoders]
        values["recommended"] = self.recommended.to_dict()
        return values

    def __str__(self) -> str:
        return self.text
