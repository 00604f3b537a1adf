"""diagnose: the geometry of a model's token vectors, and the recall of the presets."""

from __future__ import annotations

import textwrap
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.batches import fit_share, pseudo_queries
from ..data.multivectors import MultiVectors, MultiVectorsLike, as_multivectors
from ..data.ranking import best_first
from ..data.validation import as_array
from ..fde.config import FDEConfig
from ..fde.encoder import FDEEncoder
from ..index.contents import MIN_FIT_DOCUMENTS
from ..index.settings import EXACT_TOKENS
from ..reranking.chamfer import chamfer_matrix
from ..utils.checks import counted, require_int
from ..utils.intervals import Interval, share_interval

#: Number of exact best documents to find for each query.
K = 10

# Tokens of a pseudo-query, as many as ColBERT's queries have.
_WINDOW = 32

# Multiplications of exact Chamfer per query: a few seconds for all queries.
_PRODUCTS = 10**9

# Numbers of candidates at which recall is measured.
_CUTOFFS = (10, 50, 100)

# The number of candidates whose recall decides which preset is recommended.
_DECISIVE = 50

# A preset with smaller vectors is recommended if its recall is at most this much below
# the best preset.  Recall measured with windows can be as much too low.
_NEARLY_BEST = 0.02

# Levels of anisotropy.
_ANISOTROPY = ("low", "medium", "high")

# Largest mean cosine of token pairs of each level except the last.
_MEAN_COSINES = (0.3, 0.5)

# Norms within this distance of 1 count as unit: about 2**-8, the precision of bfloat16.
_UNIT_TOLERANCE = 4e-3

# Maximum number of tokens for the geometry: more would not change the printed digits.
_TOKENS = 50_000

# Maximum number of float64 numbers for the geometry, 128 MiB.
_ENTRIES = 1 << 24

# Percentiles of the numbers of tokens.
_PERCENTILES = {"min": 0, "median": 50, "p95": 95, "max": 100}

# Presets that are measured; the last one is never recommended.
_MEASURED = ("mean", "moments", "fde", "simhash", "paper")

#: How often `diagnose` reports progress: after the sample and after each encoder.
DIAGNOSIS_STEPS = 1 + len(_MEASURED)


@dataclass(frozen=True)
class TokenGeometry:
    """Geometry of token vectors.

    Parameters
    ----------
    zero_tokens : int
        Number of zero vectors, which are not measured.
    dimension : int
        Number of columns of a vector.
    mean_cosine, cosine_deviation : float
        Mean and standard deviation of the cosines of all pairs.  Uniform directions
        have the mean 0 and the deviation 1 / sqrt(dimension).
    effective_rank, centered_effective_rank : float
        Number of dimensions in use about zero, and about the mean: (sum of
        eigenvalues)**2 / sum of squared eigenvalues.
    norms : tuple of float
        Smallest, mean and largest norm.
    unit_norms : bool
        True if all norms are 1 within 0.004 and no vector is zero.
    """

    zero_tokens: int
    dimension: int
    mean_cosine: float
    cosine_deviation: float
    effective_rank: float
    centered_effective_rank: float
    norms: tuple[float, float, float]
    unit_norms: bool


@dataclass(frozen=True)
class MaxSimSpread:
    """Exact Chamfer similarity per query token, mean of all queries.

    It is given for the best, the tenth best and the median document.
    """

    best: float
    tenth: float
    median: float


@dataclass(frozen=True)
class MeasuredEncoder:
    """A measured preset.

    Parameters
    ----------
    name : str
        Name of the preset.
    config : FDEConfig
        The configuration of the preset.
    recall : dict of float
        Share of the exact ten best among 10, 50 and 100 candidates.  None if the
        sample has fewer than twice as many documents.
    interval : tuple of float, optional
        95% interval of the recall at 50 candidates for other queries of the same kind.
    """

    name: str
    config: FDEConfig
    recall: dict[int, float | None]
    interval: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        recall = {str(cutoff): value for cutoff, value in self.recall.items()}
        floats = self.config.vector_dimension
        config = self.config.to_dict()
        facts = {"name": self.name, "floats": floats, "recall": recall, "config": config}
        return {**facts, "interval": self.interval}


@dataclass(frozen=True)
class Diagnosis:
    """Result of :func:`muvera.diagnose`.

    Parameters
    ----------
    documents, empty_documents, sampled_documents : int
        Numbers of all documents, of documents without tokens, and of measured ones.
    tokens : int
        Tokens of all documents.
    tokens_per_document : dict
        min, median, p95 and max over all documents with tokens.
    queries : int
        Number of measured queries.
    query_tokens : float
        Median number of their tokens.
    pseudo_queries : bool
        True if the queries are windows of document tokens, because none were given.
    anisotropy : {"low", "medium", "high"}
        From the mean cosine of token pairs: up to .3, up to .5, above.
    geometry : TokenGeometry
        Geometry of document tokens.
    maxsim : MaxSimSpread
        Chamfer similarity of good and of median documents.
    encoders : tuple of MeasuredEncoder
        The presets.  Without 256 documents to fit on, presets that need a fit
        are missing.
    recommended : MeasuredEncoder
        The smallest vectors whose recall at 50 candidates is within .02 of the highest;
        of equally small ones, those with the highest recall.  "fde" if the sample is
        too small to measure this recall.
    exact_search : bool
        True if the collection is so small that an index reads all tokens and needs no
        vectors.
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
    maxsim: MaxSimSpread
    encoders: tuple[MeasuredEncoder, ...]
    recommended: MeasuredEncoder
    exact_search: bool

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON, with the text.

        Returns
        -------
        dict
        """
        encoders = [encoder.to_dict() for encoder in self.encoders]
        recommended = self.recommended.to_dict()
        return {**asdict(self), "encoders": encoders, "recommended": recommended, "text": self.text}

    @property
    def text(self) -> str:
        """The diagnosis as text, several lines."""
        rows = [f"{name:<15}{value}" for name, value in self._measures().items()]
        return "\n".join(
            [*rows, "", *self._recall_table(), "", *bullets(self._advice(), self.pseudo_queries)]
        )

    def _measures(self) -> dict[str, str]:
        shape = self.geometry
        lengths = self.tokens_per_document
        spread = self.maxsim
        least, mean, largest = shape.norms
        norms = "unit" if shape.unit_norms else "not unit"
        zero = f", {counted(shape.zero_tokens, 'zero vector')}" if shape.zero_tokens else ""
        source = "windows of documents" if self.pseudo_queries else "given"
        numbers = " / ".join(f"{value:.0f}" for value in lengths.values())
        return {
            "documents": f"{self.documents:,}, {self.empty_documents:,} of them without tokens; "
            f"{self.sampled_documents:,} measured",
            "tokens": f"{self.tokens:,} of {counted(shape.dimension, 'dimension')}",
            "per document": f"{numbers} ({' / '.join(lengths)})",
            "queries": f"{self.queries:,}, {source}, {self.query_tokens:.0f} tokens (median)",
            "norms": f"{least:.3f} / {mean:.3f} / {largest:.3f} (min / mean / max): {norms}{zero}",
            "mean cosine": f"{shape.mean_cosine:.3f} of token pairs "
            f"(deviation {shape.cosine_deviation:.3f}): {self.anisotropy} anisotropy",
            "effective rank": f"{shape.effective_rank:.1f} of {shape.dimension}, "
            f"{shape.centered_effective_rank:.1f} after centering",
            "MaxSim": f"{spread.best:.3f} / {spread.tenth:.3f} / {spread.median:.3f} per query token "
            "(best / 10th / median)",
        }

    def _recall_table(self) -> Iterator[str]:
        cutoffs = "".join(f"{f'@{cutoff}':>8}" for cutoff in _CUTOFFS)
        yield f"recall of the exact 10 best{cutoffs}    floats"
        for row in self.encoders:
            mark = "*" if row == self.recommended else " "
            values = "".join(
                "       -" if value is None else f"{value:8.3f}" for value in row.recall.values()
            )
            yield f"{mark} {row.name:<25}{values}{row.config.vector_dimension:>10,}"

    def _advice(self) -> Iterator[str]:
        row = self.recommended
        sampled = self.sampled_documents
        recall = row.recall[_DECISIVE]
        chance = _DECISIVE / sampled
        floats = f"{row.config.vector_dimension:,} floats"
        use = f"encoder={row.name!r} (muvera index --encoder {row.name}), {floats}"
        if self.exact_search:
            yield (
                f"The collection has {self.tokens:,} tokens: an index reads them all, is exact and needs "
                f"no vectors. If the collection grows, use {use}."
            )
        elif recall is None:
            yield (
                f"Start with {use}. Recall was not measured: this needs {2 * _DECISIVE} documents. Give more."
            )
        else:
            low, high = row.interval or (0, 1)
            yield (
                f"Use {use}: its recall at {_DECISIVE} candidates is {recall:.1%}, between {low:.0%} and "
                f"{high:.0%} for other queries (95% interval)."
            )
        # Less than half of the gap from chance to recall 1 is closed.
        if recall is not None and recall - chance < 0.5 * (1 - chance):
            yield (
                "All encoders find few of the exact best: the MaxSim of the best document is near that "
                "of the median. Search exactly (muvera index --exact-tokens N), and check that the model "
                "was trained for MaxSim."
            )
        elif self.documents > sampled and not self.exact_search:
            yield (
                f"Recall was measured among {sampled:,} documents. With the same number of candidates, "
                f"it is lower among all {self.documents:,}, so rank more candidates."
            )
        if not self.geometry.unit_norms:
            yield (
                "Norms are not 1: a long token counts more in every score. If the model was trained with "
                "cosine similarity, normalize the vectors (muvera convert --normalize)."
            )
        if not self.exact_search and not any(row.config.needs_fit_sample for row in self.encoders):
            yield (
                f"fde and moments were not measured: fitting them needs {MIN_FIT_DOCUMENTS} documents "
                "besides the documents reserved for queries. Give more documents, or raise sample=."
            )


def diagnose(
    documents: MultiVectorsLike,
    queries: MultiVectorsLike | None = None,
    *,
    sample: int = 1000,
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Diagnosis:
    """Measure token vectors and the presets on a sample, and recommend one preset.

    Parameters
    ----------
    documents : MultiVectors, one array (tokens, dimension) or a list of such arrays
        At least 2 with tokens.  Recall at 10, 50 and 100 candidates needs 20, 100 and
        200 documents.  A quarter to a half of the sample is reserved for queries.  Some
        presets are fitted and need 256 of the other documents.
    queries : the same, optional
        Real queries of the same model; up to 200 are used.  Default: windows of 32
        document tokens, each without its source document.  On three collections their
        recall at 50 candidates was between .02 lower and .05 higher than with real
        queries.
    sample : int
        Documents to measure.  Time grows in proportion.  Larger samples are more
        accurate: with the same number of candidates, recall is lower in a larger
        collection.
    seed : int
        Fixes which documents, tokens and queries are drawn.
    threads : int, optional
        Default: all usable cores.
    progress : callable, optional
        Called with 1 after the exact scores and after each encoder.

    Returns
    -------
    Diagnosis

    Raises
    ------
    TypeError
        If `sample` or `seed` is not an int.
    ValueError
        If fewer than 2 documents or no queries have tokens, the dimensions differ, a
        number is not finite, or the sample or seed is too small.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> tokens = rng.normal(size=(60, 9, 32)) + 2  # all share the direction (1, 1, ...)
    >>> diagnosis = diagnose(tokens)
    >>> diagnosis.anisotropy, diagnosis.geometry.unit_norms
    ('high', False)
    """
    require_int("sample", sample, 2)
    advance = progress or (lambda _: None)
    drawn = draw_sample(
        documents, queries, size=sample, least=(2, 1), most_queries=200, min_fitting=MIN_FIT_DOCUMENTS,
        seed=seed, threads=threads,
    )  # fmt: skip
    spreads = []
    for row, length in zip(drawn.scores, drawn.queries.lengths, strict=True):
        ordered = np.sort(row[row > -np.inf])[::-1].astype(np.float64) / length
        spreads.append((ordered[0], ordered[min(9, len(ordered) - 1)], np.median(ordered)))
    advance(1)
    order = np.random.default_rng([seed, 1]).permutation(len(drawn.documents))
    most = min(_TOKENS, _ENTRIES // drawn.documents.dimension)
    count = max(2, int(np.searchsorted(np.cumsum(drawn.documents.lengths[order]), most, side="right")))
    geometry = token_geometry(drawn.documents[np.sort(order[:count])].tokens)
    texts = drawn.collection
    measured = []
    for name in _MEASURED:
        config = FDEConfig.preset(name, texts.dimension)
        if len(drawn.fitting) < len(drawn.documents) or not config.needs_fit_sample:
            measured.append(MeasuredEncoder(name, config, *_recall(config, drawn)))
        advance(1)
    percentiles = np.percentile(texts.lengths[texts.lengths > 0], list(_PERCENTILES.values())).tolist()
    return Diagnosis(
        documents=len(texts),
        empty_documents=len(texts) - drawn.population,
        sampled_documents=len(drawn.documents),
        tokens=texts.num_tokens,
        tokens_per_document=dict(zip(_PERCENTILES, percentiles, strict=True)),
        queries=len(drawn.queries),
        query_tokens=float(np.median(drawn.queries.lengths)),
        pseudo_queries=queries is None,
        anisotropy=_ANISOTROPY[bisect_left(_MEAN_COSINES, geometry.mean_cosine)],
        geometry=geometry,
        maxsim=MaxSimSpread(*np.mean(spreads, axis=0).tolist()),
        encoders=tuple(measured),
        recommended=_recommended(measured, texts.dimension),
        exact_search=texts.num_tokens <= EXACT_TOKENS,
    )


def _recall(config: FDEConfig, drawn: Sample) -> tuple[dict[int, float | None], Interval | None]:
    """Return the recall at each number of candidates, and the interval of one.

    None for numbers that need a larger sample.
    """
    known = [cutoff for cutoff in _CUTOFFS if 2 * cutoff <= len(drawn.documents)]
    recall: dict[int, float | None] = dict.fromkeys(_CUTOFFS)
    if known:
        ranks = drawn.ranks(config)
        recall |= {cutoff: float((ranks < cutoff).mean()) for cutoff in known}
        if _DECISIVE in known:
            return recall, share_interval((ranks < _DECISIVE).mean(axis=1))
    return recall, None


def token_geometry(tokens: NDArray[np.floating]) -> TokenGeometry:
    """Return the geometry of token vectors (n, dimension).

    With the unit vectors u, the cosines of all pairs sum to ``|sum u|**2 - n``, and
    their squares to ``|sum u u^T|**2 - n`` (Frobenius norm).  Raise ValueError if fewer
    than 2 rows are nonzero.
    """
    rows = as_array(tokens, "tokens").astype(np.float64, copy=False)
    lengths = np.linalg.norm(rows, axis=1)
    zeros = int((lengths == 0).sum())
    rows, lengths = rows[lengths > 0], lengths[lengths > 0]
    count = len(rows)
    if count < 2:
        raise ValueError(f"tokens must have at least 2 nonzero rows, got {count}. Give more tokens.")
    units = rows / lengths[:, np.newaxis]
    mean, direction = rows.mean(axis=0), units.mean(axis=0)
    moments, unit_moments = rows.T @ rows / count, units.T @ units / count
    mean_cosine = (count * float(direction @ direction) - 1) / (count - 1)
    square_cosine = (count * float((unit_moments**2).sum()) - 1) / (count - 1)
    return TokenGeometry(
        zero_tokens=zeros,
        dimension=rows.shape[1],
        mean_cosine=mean_cosine,
        cosine_deviation=float(np.sqrt(max(0.0, square_cosine - mean_cosine**2))),
        effective_rank=_effective_rank(moments),
        centered_effective_rank=_effective_rank(moments - np.outer(mean, mean)),
        norms=(float(lengths.min()), float(lengths.mean()), float(lengths.max())),
        unit_norms=bool(np.abs(lengths - 1).max() <= _UNIT_TOLERANCE and not zeros),
    )


def _effective_rank(moments: NDArray[np.float64]) -> float:
    # Trace and Frobenius norm are the sums of the eigenvalues and of their squares.
    square = float((moments**2).sum())
    return float(np.trace(moments)) ** 2 / square if square > 0 else 0.0


def _recommended(measured: list[MeasuredEncoder], dimension: int) -> MeasuredEncoder:
    """Return the smallest encoder within .02 of the best recall at 50 candidates.

    Of several with equally small vectors, return the one with the highest recall.
    "fde" if recall was not measured.
    """
    recalls = [(row, row.recall[_DECISIVE]) for row in measured if row.name != "paper"]
    known = [(row, recall) for row, recall in recalls if recall is not None]
    if not known:
        return MeasuredEncoder("fde", FDEConfig.preset("fde", dimension), dict.fromkeys(_CUTOFFS))
    least = max(recall for _, recall in known) - _NEARLY_BEST
    good = [row for row, recall in known if recall >= least]
    smallest = min(row.config.vector_dimension for row in good)
    return max((row for row in good if row.config.vector_dimension == smallest), key=_recalls_decisive_first)


def _recalls_decisive_first(row: MeasuredEncoder) -> list[float]:
    """Return the measured recalls, first the one that decides the recommendation."""
    cutoffs = sorted(_CUTOFFS, key=lambda cutoff: cutoff != _DECISIVE)
    return [recall for recall in map(row.recall.get, cutoffs) if recall is not None]


# -- the sample ------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sample:
    """Sampled documents and queries."""

    #: All documents.
    collection: MultiVectors
    #: Number of documents with tokens in the collection.
    population: int
    #: Sampled documents.
    documents: MultiVectors
    #: Positions (f,) of the documents that encoders are fitted to.
    fitting: NDArray[np.int64]
    #: Real queries, or windows of documents.
    queries: MultiVectors
    #: Position of each window's document, with which its score is -inf; -1 for a real
    #: query: (n_queries,).
    sources: NDArray[np.int64]
    #: None: all usable cores.
    threads: int | None

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """Exact scores, float32 (n_queries, n_documents)."""
        scores = chamfer_matrix(self.queries, self.documents, threads=self.threads)
        windows = np.flatnonzero(self.sources >= 0)
        scores[windows, self.sources[windows]] = -np.inf
        return scores

    def ranks(self, config: FDEConfig) -> NDArray[np.int64]:
        """Return the ranks of each query's exact ten best by an encoder's vectors.

        Ranks start at 0, and the shape is (n_queries, 10).  The encoder is fitted here.
        """
        encoder = FDEEncoder(config).fit(self.documents[self.fitting], threads=self.threads)
        documents = encoder.encode_documents(self.documents, threads=self.threads)
        products = encoder.encode_queries(self.queries, threads=self.threads) @ documents.T
        products[self.scores == -np.inf] = -np.inf
        ranks = np.argsort(np.argsort(-products, axis=1, kind="stable"), axis=1)
        best = np.stack([best_first(row, K) for row in self.scores])
        return np.take_along_axis(ranks, best, axis=1)


def draw_sample(
    documents: MultiVectorsLike,
    queries: MultiVectorsLike | None,
    *,
    size: int,
    least: tuple[int, int],
    most_queries: int,
    min_fitting: int,
    seed: int,
    threads: int | None,
) -> Sample:
    """Draw documents with tokens, and queries.

    Parameters
    ----------
    documents : MultiVectors, one array (tokens, dimension) or a list of such arrays
        Collection to draw from.
    queries : the same or None
        Real queries.  None: windows are cut from documents.
    size : int
        Largest number of documents.
    least : tuple of int
        Numbers of documents and of queries that must have tokens.
    most_queries : int
        Largest number of queries.  Fewer are drawn if tokens are many or wide.
    min_fitting : int
        If fewer documents would remain for fitting, encoders are fitted to all
        documents, and windows are cut from all of them.
    seed : int
        Seed of all draws.
    threads : int or None
        Default: all usable cores.

    Returns
    -------
    Sample

    Raises
    ------
    TypeError, ValueError
        If too few documents or queries have tokens, the dimensions differ, or a number
        is not finite.
    """
    require_int("seed", seed, 0)
    texts = as_multivectors(documents, "documents")
    filled = _with_tokens(texts, "documents", least[0])
    if queries is not None:
        real = as_multivectors(queries, "queries")
        real.require_dimension(texts.dimension, "queries", "documents")
        real.require_finite("queries")
        real = real[_with_tokens(real, "queries", least[1])]
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)]
    document_stream, fit_stream, query_stream = streams
    sampled = texts[np.sort(document_stream.permutation(filled)[:size])]
    sampled.require_finite("sample of documents")
    order = fit_stream.permutation(len(sampled))
    fitting, others = np.split(order, [round(fit_share(len(filled)) * len(sampled))])
    if len(fitting) < min_fitting:
        fitting = others = order
    fitting, others = np.sort(fitting), np.sort(others)
    length = _WINDOW if queries is None else max(1, real.num_tokens // len(real))
    products = sampled.num_tokens * sampled.dimension * length
    count = min(most_queries, max(most_queries // 10, _PRODUCTS * most_queries // products))
    if queries is None:
        drawn, cut = pseudo_queries(sampled[others], min(count, len(others)), _WINDOW, query_stream)
        sources = others[cut]
    else:
        drawn = real[np.sort(query_stream.permutation(len(real))[:count])]
        sources = np.full(len(drawn), -1)
    return Sample(texts, len(filled), sampled, fitting, drawn, sources, threads)


def _with_tokens(texts: MultiVectors, name: str, least: int) -> NDArray[np.int64]:
    """Return the positions of texts with tokens, int64 (n,).

    Raise ValueError if fewer than `least` have tokens.
    """
    filled = np.flatnonzero(texts.lengths > 0)
    if len(filled) < least:
        instead = "Give more" if name == "documents" else "Give more, or none to use windows of documents"
        raise ValueError(f"At least {least} {name} with tokens are needed, got {len(filled)}. {instead}.")
    return filled


def bullets(sentences: Iterable[str], pseudo_queries: bool) -> list[str]:
    """Return a list of sentences as lines of at most 79 columns.

    Without real queries (`pseudo_queries`), the last one is a warning.
    """
    warning = "Real queries can be harder than windows of documents. Pass real queries to be sure."
    lines: list[str] = []
    for sentence in [*sentences, *([warning] if pseudo_queries else [])]:
        lines += textwrap.wrap(sentence, 79, initial_indent="- ", subsequent_indent="  ")
    return lines
