"""diagnose: the geometry of a model's token vectors, and the recall of every encoder on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_multivectors
from ..data.sampling import fit_share, pseudo_queries
from ..encoders.base import Encoder
from ..encoders.fde.config import FDEConfig
from ..encoders.fde.encoder import FDEEncoder
from ..encoders.registry import make_encoder
from ..index.settings import EXACT_TOKENS
from ..index.two_stage_search import MIN_FIT_DOCUMENTS
from ..utils.checks import require_int
from .capacity import CellCapacity, cell_capacity
from .configurations import PAPER, encoders_to_measure
from .diagnosis import Diagnosis, MaxSimSpread, MeasuredEncoder
from .geometry import CellUse, TokenGeometry, cell_use, token_geometry
from .intrinsic_dimension import IntrinsicDimension, intrinsic_dimension
from .recall import RecallEvaluator
from .report import render

__all__ = ["diagnose"]

#: Numbers of candidates at which recall is measured.
CUTOFFS = (10, 50, 100)

#: Mean cosines of token pairs up to which anisotropy is low and medium; above it is high.
LOW_ANISOTROPY, MEDIUM_ANISOTROPY = 0.3, 0.5

#: Smaller vectors are recommended where they lose no more than this of recall at 50 candidates.
TOLERATED_LOSS = 0.02

# Queries, tokens of a pseudo-query (ColBERT's queries have 32), and multiplications of exact
# Chamfer, some seconds' worth: longer or wider tokens mean fewer queries, but at least 20.
_QUERIES, _WINDOW, _PRODUCTS, _MIN_QUERIES = 200, 32, 2 * 10**11, 20

# Vectors and neighbors for the intrinsic dimension; among fewer vectors it is not measured.
_VECTORS, _NEIGHBORS, _MIN_VECTORS = 2000, 100, 100

# Tokens for geometry and cells, and their float64 numbers: more would not change what is printed.
_TOKENS, _ENTRIES = 50_000, 1 << 24


def diagnose(
    documents: Any,
    queries: Any = None,
    config: FDEConfig | None = None,
    *,
    sample: int = 1000,
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Diagnosis:
    """Measure token vectors and all encoders of them on a sample, and recommend one.

    Parameters
    ----------
    documents : MultiVectors, one array (tokens, dimension) or a list of such arrays
        At least 2 with tokens.  Recall needs 20 documents.  Encoders that learn maps need 256
        documents to learn from, a quarter to a half of the sample being kept for queries.
    queries : the same, optional
        Real queries of the same model; up to 200 are used.  Without them windows of 32
        document tokens stand in, each with its source document left out.  On three collections
        their recall at 50 candidates was between .02 lower and .05 higher than that of real
        queries.
    config : FDEConfig, optional
        A configuration to measure besides the others.  Default: the default one.
    sample : int
        Documents to measure.  Time grows in proportion.  Larger samples are more accurate: in a
        larger collection the same number of candidates finds less.
    seed : int
        Fixes which documents, tokens and queries are drawn.
    threads : int, optional
        For scoring and encoding.  Default: all usable cores.
    progress : callable, optional
        Called with 1 after the exact scores and after each encoder.

    Returns
    -------
    Diagnosis

    Raises
    ------
    TypeError
        Where `config` is no FDEConfig, or `sample` or `seed` is no int.
    ValueError
        For fewer than 2 documents with tokens, queries without any token, another dimension, a
        number that is not finite, or a sample or seed that is too small.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> tokens = rng.normal(size=(60, 9, 32)) + 2  # all share the direction (1, 1, ...)
    >>> diagnosis = diagnose(tokens)
    >>> diagnosis.anisotropy, diagnosis.geometry.unit_norms
    ('high', False)
    """
    texts = as_multivectors(documents, "documents")
    config = FDEConfig(dimension=texts.dimension) if config is None else config
    if not isinstance(config, FDEConfig):
        raise TypeError(f"config must be an FDEConfig, got {type(config).__name__}.")
    texts.require_dimension(config.dimension, "documents", "config")
    require_int("sample", sample, 2)
    require_int("seed", seed, 0)
    advance = progress or (lambda _: None)
    filled = np.flatnonzero(texts.lengths > 0)
    if len(filled) < 2:
        raise ValueError(f"diagnose needs at least 2 documents with tokens, got {len(filled)}.")
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)]
    document_stream, token_stream, query_stream, fit_stream = streams
    sampled = texts[np.sort(document_stream.permutation(filled)[:sample])]
    sampled.require_finite("sample of documents")
    fitting, others = _split(len(sampled), len(filled), fit_stream)
    # Maps know the documents that they were learned from better than others: no pseudo-query may
    # come from these.  Where there are too few documents to learn from, none are kept apart.
    learn_maps = len(fitting) >= MIN_FIT_DOCUMENTS
    if not learn_maps:
        fitting = others = np.arange(len(sampled))

    given = None if queries is None else _real_queries(queries, config)
    selected, sources = _queries(sampled, given, others, query_stream)
    k = min(10, len(sampled) - (sources is not None))
    evaluator = RecallEvaluator(sampled, selected, sources, k=k, threads=threads)
    advance(1)
    part = _with_tokens(sampled, token_stream)
    geometry = token_geometry(part.tokens)
    encoders: dict[str, Encoder] = {}
    measured = []
    for name, each in encoders_to_measure(config).items():
        if learn_maps or not each.needs_fit_sample:
            encoders[name] = make_encoder(each).fit(sampled[fitting], threads=threads)
            measured.append(_measure(name, encoders[name], evaluator))
        advance(1)
    recommended = _recommended(measured)
    planes = FDEEncoder(config).matrices.dense_hyperplanes[:, : config.dimension]
    center = part.tokens.astype(np.float64).mean(axis=0)
    cells = cell_use(part, planes, config.num_repetitions)
    centered_cells = cell_use(part, planes, config.num_repetitions, center)
    tokens_per_cell = _tokens_per_cell(part, centered_cells if config.center else cells)
    query_tokens, maxsim = float(np.median(selected.lengths)), _spread(evaluator.scores, selected.lengths)
    query_cosine = None if given is None else _mean_cosine(selected.tokens, part.tokens)
    found = Diagnosis(
        documents=len(texts),
        empty_documents=len(texts) - len(filled),
        sampled_documents=len(sampled),
        tokens=texts.num_tokens,
        tokens_per_document=_length_summary(texts.lengths[filled]),
        queries=len(selected),
        query_tokens=query_tokens,
        pseudo_queries=given is None,
        anisotropy=_anisotropy(geometry.mean_cosine),
        geometry=geometry,
        query_cosine=query_cosine,
        maxsim=maxsim,
        config=config,
        cells=cells,
        centered_cells=centered_cells,
        tokens_per_cell=tokens_per_cell,
        capacity=_capacity(
            config, geometry, maxsim, query_cosine, query_tokens, tokens_per_cell, len(filled)
        ),
        encoders=tuple(measured),
        recommended=recommended,
        intrinsic_dimension=_intrinsic_dimension(encoders[recommended.name], sampled, seed, threads),
        exact_search=texts.num_tokens <= EXACT_TOKENS,
    )
    return replace(found, text=render(found))


def _split(
    sampled: int, documents: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return positions in the sample to fit encoders on, and the others."""
    fitting, others = np.split(rng.permutation(sampled), [round(fit_share(documents) * sampled)])
    return np.sort(fitting), np.sort(others)


def _real_queries(queries: Any, config: FDEConfig) -> MultiVectors:
    texts = as_multivectors(queries, "queries")
    if texts.dimension != config.dimension:
        raise ValueError(
            f"queries have {texts.dimension} columns, but documents have {config.dimension}. Give queries of the "
            "same model."
        )
    texts.require_finite("queries")
    filled = np.flatnonzero(texts.lengths > 0)
    if not len(filled):
        raise ValueError("queries have no tokens at all. Leave them out, and windows of documents stand in.")
    return texts[filled]


def _queries(
    documents: MultiVectors,
    given: MultiVectors | None,
    others: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[MultiVectors, NDArray[np.int64] | None]:
    """Return as many queries as exact scores have time for, and their source documents if any."""
    length = _WINDOW if given is None else max(1, given.num_tokens // len(given))
    products = documents.num_tokens * documents.dimension * length
    count = min(_QUERIES, max(_MIN_QUERIES, _PRODUCTS // products))
    if given is None:
        windows, sources = pseudo_queries(documents[others], min(count, len(others)), _WINDOW, rng)
        return windows, others[sources]
    return given[np.sort(rng.permutation(len(given))[:count])], None


def _with_tokens(documents: MultiVectors, rng: np.random.Generator) -> MultiVectors:
    """Return whole documents of about as many tokens as geometry takes, at least two."""
    order = rng.permutation(len(documents))
    tokens = min(_TOKENS, _ENTRIES // documents.dimension)
    most = int(np.searchsorted(np.cumsum(documents.lengths[order]), tokens, side="right"))
    return documents[np.sort(order[: max(2, most)])]


def _measure(name: str, encoder: Encoder, evaluator: RecallEvaluator) -> MeasuredEncoder:
    cutoffs = [cutoff for cutoff in CUTOFFS if 2 * cutoff <= len(evaluator.documents)]
    values = dict(zip(cutoffs, evaluator.recall(encoder, cutoffs), strict=True)) if cutoffs else {}
    return MeasuredEncoder(name, encoder.config, {cutoff: values.get(cutoff) for cutoff in CUTOFFS})


def _recommended(measured: list[MeasuredEncoder]) -> MeasuredEncoder:
    """Return the smallest of those that find about the most; unmeasured, the default FDE."""
    default = next(row for row in measured if row.config == FDEConfig(dimension=row.config.dimension))
    values = {row.name: row.recall[50] for row in measured if row.name != PAPER}
    known = [value for value in values.values() if value is not None]
    if not known:
        return default
    good = [row for row in measured if (values.get(row.name) or 0.0) >= max(known) - TOLERATED_LOSS]
    return min((row for row in good if row.name in values), key=lambda row: row.floats)


def _tokens_per_cell(documents: MultiVectors, cells: CellUse) -> float:
    """Return the mean number of tokens of a document in one of its cells that has any."""
    return float(documents.lengths.mean() / (cells.cells * cells.used_per_document))


def _capacity(
    config: FDEConfig,
    geometry: TokenGeometry,
    maxsim: MaxSimSpread,
    query_cosine: float | None,
    query_tokens: float,
    tokens_per_cell: float,
    documents: int,
) -> CellCapacity | None:
    """Return the capacity of the cells, where tokens are the unit vectors of its model."""
    similarity = maxsim.best - (geometry.mean_cosine if query_cosine is None else query_cosine)
    if not geometry.unit_norms or not 0 < similarity <= 1:
        return None
    return cell_capacity(
        tokens_per_cell,
        None if config.projection == "identity" else config.block_width,
        config.num_repetitions,
        geometry.cosine_deviation,
        documents - 1,
        similarity=similarity,
        query_tokens=max(1, round(query_tokens)),
    )


def _intrinsic_dimension(
    encoder: Encoder, documents: MultiVectors, seed: int, threads: int | None
) -> IntrinsicDimension | None:
    """Return that of the documents' vectors in the space that a graph of them has by default."""
    some = documents[:_VECTORS]
    if len(some) < _MIN_VECTORS:
        return None
    vectors = encoder.encode_documents(some, threads=threads)
    return intrinsic_dimension(vectors, min(_NEIGHBORS, len(some) // 10), seed=seed)


def _anisotropy(mean_cosine: float) -> str:
    if mean_cosine <= LOW_ANISOTROPY:
        return "low"
    return "medium" if mean_cosine <= MEDIUM_ANISOTROPY else "high"


def _length_summary(lengths: NDArray[np.int64]) -> dict[str, float]:
    return {
        "min": int(lengths.min()),
        "median": float(np.median(lengths)),
        "p95": float(np.percentile(lengths, 95)),
        "max": int(lengths.max()),
    }


def _mean_cosine(left: NDArray[np.floating], right: NDArray[np.floating]) -> float:
    """Return the mean cosine over all pairs of one vector from each side."""
    means = []
    for rows in (left.astype(np.float64), right.astype(np.float64)):
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        means.append((rows / np.where(norms > 0, norms, 1)).mean(axis=0))
    return float(means[0] @ means[1])


def _spread(scores: NDArray[np.float32], lengths: NDArray[np.int64]) -> MaxSimSpread:
    best, tenth, median = [], [], []
    for row, length in zip(scores, lengths, strict=True):
        ordered = np.sort(row[row > -np.inf])[::-1].astype(np.float64) / length
        best.append(ordered[0])
        tenth.append(ordered[min(9, len(ordered) - 1)])
        median.append(np.median(ordered))
    return MaxSimSpread(float(np.mean(best)), float(np.mean(tenth)), float(np.mean(median)))
