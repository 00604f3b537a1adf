"""IndexInfo: sizes, settings and warnings of an index."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .quality import FirstStageRecall

__all__ = ["IndexInfo"]


@dataclass(frozen=True)
class IndexInfo:
    """What an index holds, how it searches, and what its user should know.

    Parameters
    ----------
    documents : int
        Documents that are there.
    empty_documents : int
        Those of them without tokens, which no search returns.
    deleted_documents : int
        Rows of deleted and replaced documents that still take memory.
    tokens : int
        Tokens of the documents that are there.
    dimension : int
        Columns of a token vector.
    search : str
        What a search reads: "all tokens", or the kind of the vectors' search.
    exact_tokens : int
        Up to how many tokens a search reads them all.
    encoder : dict
        The encoder's configuration, and its "vector_dimension".
    vectors : dict or None
        Of the vectors' search: kind, settings, "bytes_per_vector", and for a graph "recall", the share
        of the exact best vectors that it finds; None while all tokens are read.
    token_codec : dict
        How tokens are kept: "codec", "keep_exact", whether a codec is "fitted", "bytes_per_token" that a
        search reads of every candidate, and "exact_bytes_per_token" that it reads of the best few, 0 where
        there are none.
    first_stage : FirstStageRecall or None
        Share of the exact best documents among the default number of candidates, as it was measured
        when the index was built or had doubled; None where all tokens are read, every document is a
        candidate, or there are too many tokens to read them all for it (see
        :meth:`muvera.MuveraIndex.measure_recall`).
    drift : float or None
        Distance of the documents that came since the encoder's maps were learned to those that they were
        learned from, 0 for alike to 1 for nothing in common; None where no maps are learned, or few came.
    bytes_per_document : int
        Tokens, or their codes, and vectors of a document, on average; without exact tokens beside codes.
    warnings : tuple of str
        Sentences.
    """

    documents: int
    empty_documents: int
    deleted_documents: int
    tokens: int
    dimension: int
    search: str
    exact_tokens: int
    encoder: dict[str, Any]
    vectors: dict[str, Any] | None
    token_codec: dict[str, Any]
    first_stage: FirstStageRecall | None
    drift: float | None
    bytes_per_document: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "warnings": list(self.warnings)}
