"""Settings of an index, and what it reports about itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from ..mips.settings import HNSWSettings
from ..reranking.codecs import CODECS
from ..utils.checks import given, require_choice, require_int, require_number
from ..utils.hints import Argument, Message

Backend = Literal["auto", "exact", "scan", "hnsw"]

TokenKind = Literal["float32", "float16", "int8", "4bit", "2bit", "1bit"]

#: Collections of at most this many tokens are searched exactly: the two stages would
#: not be faster.
EXACT_TOKENS = 20_000

LOW_RECALL = 0.9  # of a first stage; a lower one gets a warning

#: Default number of documents that the vectors propose and the tokens rank: for most
#: collections of token vectors, they include nearly all of the exact ten best.
DEFAULT_CANDIDATES = 100


def num_candidates(k: int, candidates: int | None, default: int = DEFAULT_CANDIDATES) -> int:
    """Return the number of documents that a search for the `k` best ranks exactly.

    `candidates` is the number that the caller gave, if any.  Otherwise it is `default`,
    or `k` if that is more.
    """
    return max(k, default) if candidates is None else candidates


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """How an index stores tokens and searches vectors.

    Parameters
    ----------
    backend : {"auto", "exact", "scan", "hnsw"}
        "exact" reads every vector.  "scan" reads a 4-bit code of every pair of floats
        and orders the best by bytes: faster and in a quarter of the memory, but it may
        miss a candidate.  "hnsw" searches a graph of hnswlib.  It takes long to build
        and needs more memory; its time grows more slowly with the collection than that
        of a scan.  "auto" starts with "exact" and changes to "scan" when all vectors
        have 2**20 floats.
    hnsw : HNSWSettings or dict
        Settings of the backend "hnsw", such as ``{"m": 32}``.
    exact_tokens : int
        Score all documents exactly, without vectors, if they have at most this many
        tokens in total.  The limit also applies to the documents that ``ids=``
        selects.  0: never.
    tokens : {"float32", "float16", "int8", "4bit", "2bit", "1bit"}, optional
        How token vectors are stored: as floats, or as codes that are learned from the
        documents.  "int8" takes half of the bytes of float16, the others about 1/4, 1/7
        and 1/13; fewer bits lower recall.  Default: float16 documents stay float16,
        all others float32.
    keep_exact : bool
        Also store the float tokens beside the codes, on disk once the index is saved.
        The codes rank the candidates and the floats rerank the best ones.
    pool : float
        Tokens that one mean replaces in the ranking of candidates: means of similar
        tokens, as bytes, rank the candidates, and all tokens rerank the best ones.  2
        halves the memory and the time of the ranking.  Tokens must have length 1.
        Default: 1, no means.

    Raises
    ------
    TypeError, ValueError
        For a wrong value.

    Examples
    --------
    >>> IndexSettings(backend="hnsw", hnsw=HNSWSettings(m=32)).hnsw.m
    32
    """

    backend: Backend = "auto"
    hnsw: HNSWSettings = field(default_factory=HNSWSettings)
    exact_tokens: int = EXACT_TOKENS
    tokens: TokenKind | None = None
    keep_exact: bool = False
    pool: float = 1.0

    def __post_init__(self) -> None:
        require_choice("backend", self.backend, get_args(Backend))
        object.__setattr__(self, "hnsw", HNSWSettings.of(self.hnsw))
        object.__setattr__(self, "exact_tokens", require_int("exact_tokens", self.exact_tokens, 0))
        if self.tokens is not None:
            require_choice("tokens", self.tokens, get_args(TokenKind))
        if not isinstance(self.keep_exact, bool):
            raise TypeError(f"keep_exact must be a bool, got {given(self.keep_exact)}.")
        object.__setattr__(self, "pool", float(require_number("pool", self.pool, 1)))
        if self.keep_exact and self.pool > 1:
            raise ValueError(
                Message(
                    Argument("pool", f"{self.pool:g}"),
                    " keeps all tokens beside means, so omit ",
                    Argument("keep_exact"),
                    ".",
                )
            )
        if self.keep_exact and self.tokens not in CODECS:
            raise ValueError(
                Message(
                    Argument("keep_exact", "True"),
                    " stores exact tokens beside codes, got ",
                    Argument("tokens", repr(self.tokens)),
                    f". Give one of {', '.join(CODECS)}, or omit ",
                    Argument("keep_exact"),
                    ".",
                )
            )

    @classmethod
    def of(cls, settings: IndexSettings | None = None, **changes: Any) -> IndexSettings:
        """Return `settings` with `changes` to single fields.

        Parameters
        ----------
        settings : IndexSettings, optional
            Default: ``IndexSettings()``.
        **changes
            New values of single fields.

        Returns
        -------
        IndexSettings

        Raises
        ------
        TypeError, ValueError
            If `settings` has another type, if there is no such field, or as for
            :class:`IndexSettings`.
        """
        base = cls() if settings is None else settings
        if not isinstance(base, cls):
            raise TypeError(f"settings must be an IndexSettings, got {given(settings)}.")
        names = [entry.name for entry in fields(cls)]
        unknown = [name for name in changes if name not in names]
        if unknown:
            raise TypeError(f"IndexSettings has no field {unknown[0]!r}. The fields are: {', '.join(names)}.")
        return replace(base, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that ``IndexSettings.of(**values)`` accepts.

        Returns
        -------
        dict
            Values by field; the value of `hnsw` is a dict, too.
        """
        return asdict(self)


@dataclass(frozen=True)
class FirstStageRecall:
    """Share of the exact best documents among the candidates.

    Parameters
    ----------
    recall : float
        Mean share of the `k` best documents by exact Chamfer similarity.
    k : int
        Number of exact best documents.
    candidates : int
        Number of candidates for each query.
    queries : int
        Number of queries that were measured.
    pseudo_queries : bool
        True if the queries are windows of document tokens, each measured without its
        own document.
    documents : int
        Documents in the index when it was measured.
    interval : tuple of float, optional
        95% interval of the recall for other queries of the same kind.
    """

    recall: float
    k: int
    candidates: int
    queries: int
    pseudo_queries: bool
    documents: int
    interval: tuple[float, float] | None = None

    @property
    def warning(self) -> str | None:
        """A warning if the recall is low, otherwise None."""
        if self.recall >= LOW_RECALL:
            return None
        source = "windows of document tokens" if self.pseudo_queries else "queries"
        return (
            f"Only {self.recall:.0%} of the exact {self.k} best documents are among {self.candidates} "
            f"candidates (measured with {self.queries} {source}). Search with more candidates, raise m "
            "or ef of a graph, or find a better encoder with muvera.diagnose or muvera.tune."
        )


@dataclass(frozen=True)
class IndexInfo:
    """Sizes, settings, measured quality and warnings of an index.

    Parameters
    ----------
    documents : int
        Number of documents, without deleted ones.
    empty_documents : int
        Documents without tokens, which no search returns.
    deleted_documents : int
        Deleted and replaced documents that still take memory; each part counts.
    tokens : int
        Number of tokens of these documents.
    dimension : int
        Columns of a token vector.
    search : str
        What a search reads: "all tokens", or the kind of vector search.
    exact_tokens : int
        As in the settings.
    encoder : dict
        The encoder's configuration and its "vector_dimension".
    vectors : dict or None
        Kind, settings and "bytes_per_vector" of the vector search.  None while all
        tokens are read.
    token_codec : dict
        How tokens are stored: "codec", "keep_exact", "fitted", "bytes_per_token" that a
        search reads of every candidate, and "exact_bytes_per_token" that it reads of
        the best candidates.
    first_stage : FirstStageRecall or None
        Recall of windows of documents.  Measured when the index is built, when its size
        has doubled or halved, and when a sixteenth of the documents are new.  None if
        every document is a candidate.
    added : FirstStageRecall or None
        Recall of windows of documents that were added after the encoder was fitted.
        None if they are few.
    candidates : int or None
        Documents that a search for the ten best ranks by default: 100, or more if the
        calibration found that 100 contain less than 95% of the ten best.  None while
        all tokens are read.
    bytes_per_document : int
        Average bytes of tokens (or codes) and vector, without exact tokens beside
        codes.
    warnings : tuple of str
        What lowers recall, slows searches down or takes memory, and what to do.
    parts : int or None
        Number of parts of these documents; None if each document has one.
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
    candidates: int | None
    bytes_per_document: int
    warnings: tuple[str, ...]
    parts: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values.

        Returns
        -------
        dict
            Values by field; `first_stage` and `added` are dicts or None, and the
            warnings are a list.
        """
        return {**asdict(self), "warnings": list(self.warnings)}
