"""IndexInfo and FirstStageRecall: sizes, settings and measured quality of an index."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

#: A first stage with less recall than this gets a warning.
LOW_RECALL = 0.9


@dataclass(frozen=True)
class FirstStageRecall:
    """Share of the exact best documents that are among the candidates, and how it was measured.

    Parameters
    ----------
    recall : float
        Mean share of the `k` best documents by exact Chamfer similarity among the candidates.
    k : int
    candidates : int
        Documents that the vectors propose for each query.
    queries : int
        Number of measured queries.
    pseudo_queries : bool
        True if the queries are windows of document tokens, each measured without its own document.
    documents : int
        Documents in the index at that time.  With more documents, recall is lower for the same number of
        candidates.
    """

    recall: float
    k: int
    candidates: int
    queries: int
    pseudo_queries: bool
    documents: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @property
    def warning(self) -> str | None:
        """A warning if the recall is low, otherwise None."""
        if self.recall >= LOW_RECALL:
            return None
        source = "windows of document tokens" if self.pseudo_queries else "queries"
        return (
            f"Only {self.recall:.0%} of the exact {self.k} best documents are among {self.candidates} candidates "
            f"(measured with {self.queries} {source}). Search with more candidates, raise m or ef of a graph, or find "
            "a better encoder with muvera.diagnose or muvera.tune."
        )


@dataclass(frozen=True)
class IndexInfo:
    """Sizes, settings, measured quality and warnings of an index.

    Parameters
    ----------
    documents : int
    empty_documents : int
        Documents without tokens, which no search returns.
    deleted_documents : int
        Deleted and replaced documents that still take memory.
    tokens : int
    dimension : int
        Columns of a token vector.
    search : str
        What a search reads: "all tokens", or the kind of vector search.
    exact_tokens : int
        Collections of up to this many tokens are searched exactly.
    encoder : dict
        The encoder's configuration, its "vector_dimension", and "compared": the first-stage recall of each kind of
        vectors among which this one was chosen; None without a comparison.
    vectors : dict or None
        Kind, settings and "bytes_per_vector" of the vector search.  None while all tokens are read.
    token_codec : dict
        How tokens are stored: "codec", "keep_exact", "fitted", "bytes_per_token" that a search reads of every
        candidate, and "exact_bytes_per_token" that it reads of the best candidates (0 without exact tokens).
    first_stage : FirstStageRecall or None
        Recall of windows of documents.  Measured when the index is built, when its size has doubled or halved, and
        when a sixteenth of the documents are new.  None if all tokens are read, or every document is a candidate.
    added : FirstStageRecall or None
        Recall of windows of documents that were added after the encoder was fitted.  None if they are few.
    bytes_per_document : int
        Average bytes of tokens (or codes) and vector, without exact tokens beside codes.
    warnings : tuple of str
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
    added: FirstStageRecall | None
    bytes_per_document: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "warnings": list(self.warnings)}
